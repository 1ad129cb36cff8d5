"""Under which conditions a number was had; every result carries them."""

import datetime
import platform
import subprocess
import sys
from pathlib import Path

import torch

from hyvideo_rt import __version__

ROOT = Path(__file__).resolve().parent.parent


def conditions(device: torch.device, weights: str) -> dict[str, object]:
    """Command, machine, versions and commit. `weights` says whose weights ran: published, tiny or random."""
    found: dict[str, object] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hyvideo_rt": __version__,
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"),
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "weights": weights,
    }
    if device.type == "cuda":
        query = "--query-gpu=name,driver_version,power.limit,clocks.max.sm,clocks.sm"
        found["gpu"] = _output("nvidia-smi", query, "--format=csv,noheader", f"--id={device.index or 0}")
        found["cuda"] = torch.version.cuda
    else:
        found["cpu"] = _cpu_name()
        found["threads"] = torch.get_num_threads()
    return found


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
