"""Which machine code a device runs: what an engine is built for, and what it may be loaded on."""

import hashlib
import platform
from pathlib import Path

import torch


def target_of(device: torch.device) -> str:
    """`sm90` for a GPU; for a CPU its instruction sets, as `cpu-x86_64-` and a digest of their names."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"sm{major}{minor}"
    return f"cpu-{platform.machine()}-{hashlib.sha256(_instruction_sets().encode()).hexdigest()[:8]}"


def device_name(device: torch.device) -> str:
    """As the driver calls a GPU; empty for a CPU, and for a GPU that is elsewhere."""
    here = device.type == "cuda" and torch.cuda.is_available()
    return torch.cuda.get_device_name(device) if here else ""


def _instruction_sets() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return " ".join(sorted(flags.split(":")[-1].split()))
