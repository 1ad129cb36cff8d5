"""Peaks and steady sizes: of this process on the host, of what torch allocates on a GPU. Bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")


def device_peak(run: Callable[[], Result], device: torch.device) -> tuple[Result, int | None]:
    """What one call returns, and the most that lay on the GPU during it above what lay there before.

    None on a CPU, where a process has one heap for all: `host_peak`, in a process of its own.
    """
    if device.type == "cpu":
        return run(), None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = run()
    torch.cuda.synchronize(device)
    return result, torch.cuda.max_memory_allocated(device) - before


def host_now() -> int:
    return _resident("VmRSS")


def host_peak() -> int:
    """Since the process started or `forget_host_peak`."""
    return _resident("VmHWM")


def forget_host_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _resident(field: str) -> int:
    """From /proc: `ru_maxrss` would start at the peak of the process that started this one."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)
