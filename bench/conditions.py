"""Under which conditions a number was had; every result carries them."""

import datetime
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hyvideo_rt import __version__

LIBRARIES = (
    *("triton", "tensorrt", "tensorrt_rtx_cu13", "openvino", "diffusers"),
    *("fa3-fwd", "nvidia-cudnn-frontend", "xfuser"),
)
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Workload:
    """What ran. weights: published, tiny or random; steps 0 where none are taken; precision and backends of
    all contestants, in words.
    """

    weights: str
    sizes: Sequence[str]
    steps: int
    precision: str
    backends: Sequence[str]


def conditions(device: torch.device, workload: Workload) -> dict[str, object]:
    """The machine's and the workload's; of a GPU also what it does under load."""
    loaded = {"gpu_under_load": _under_load(device)} if device.type == "cuda" else {}
    return machine(device) | loaded | asdict(workload)


def machine(device: torch.device) -> dict[str, object]:
    """Command, machine, versions and commit."""
    found: dict[str, object] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hyvideo_rt": __version__,
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"),
        "command": command_of(sys.orig_argv),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version for name in LIBRARIES if (version := _version(name))},
    }
    if device.type == "cuda":
        found["gpu"] = _nvidia_smi(device, "name,driver_version,power.limit,clocks.max.sm")
        found["cuda"] = torch.version.cuda
    else:
        found["cpu"] = _cpu_name()
        found["threads"] = torch.get_num_threads()
    return found


def command_of(argv: Sequence[str]) -> str:
    """As one would type it, without where this machine keeps Python and where the result went."""
    words = ["hyvideo-rt" if Path(word).name == "hyvideo-rt" else word for word in argv[1:]]
    words = words if words[:1] == ["hyvideo-rt"] else ["python", *words]
    if "--out" in words:
        at = words.index("--out")
        del words[at : at + 2]
    return shlex.join(words)


def _under_load(device: torch.device) -> dict[str, str]:
    """What clock it keeps while it multiplies: at rest it has another one, and hot or at its cap a third.

    The products are queued first, about two seconds of them on an H100; the question is asked while they run.
    """
    x = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(1000):
        torch.mm(x, x)
    asked = ("clocks.sm", "power.draw", "temperature.gpu")
    answer = dict(zip(asked, _nvidia_smi(device, ",".join(asked)).split(", "), strict=False))
    torch.cuda.synchronize(device)
    del x
    torch.cuda.empty_cache()
    return answer


def _nvidia_smi(device: torch.device, query: str) -> str:
    return _output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", f"--id={device.index or 0}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
