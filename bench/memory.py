"""Peaks and steady sizes: of this process on the host, of what torch allocates on a GPU. Bytes."""

import contextlib
import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Memory:
    """Of one contestant, above what lay there before it was made: at most, and what it keeps.

    None where there is no such device, or where the system does not tell.
    """

    host_peak_bytes: int | None
    host_steady_bytes: int | None
    device_peak_bytes: int | None
    device_steady_bytes: int | None


class Watch:
    """On what is made and run after it. What is free is given back first, or it would be filled unseen."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        give_back(device)
        self._host_before, self._device_before = _told(host_now), self._allocated()
        self.forget_peaks()

    def forget_peaks(self) -> None:
        """What has been made stays counted."""
        give_back(self._device)
        self._tells = True
        try:
            forget_host_peak()
        except OSError:  # some systems keep one peak for the whole life of a process
            self._tells = False
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def memory(self) -> Memory:
        """Until now; what is free by now is given back."""
        most = _told(host_peak) if self._tells else None
        device_peak = None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            device_peak = torch.cuda.max_memory_allocated(self._device)
        give_back(self._device)
        return Memory(
            _above(most, self._host_before),
            _above(_told(host_now), self._host_before),
            _above(device_peak, self._device_before),
            _above(self._allocated(), self._device_before),
        )

    def _allocated(self) -> int | None:
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else None


def give_back(device: torch.device) -> None:
    """What nobody refers to and what allocators keep for later, to the system and to the device."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library has no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


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
    raise LookupError(field)


def _told(read: Callable[[], int]) -> int | None:
    try:
        return read()
    except (OSError, LookupError):
        return None


def _above(found: int | None, before: int | None) -> int | None:
    return None if found is None or before is None else found - before
