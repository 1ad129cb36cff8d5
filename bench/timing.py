"""The one stopwatch: contestants take turns in one process, so a drifting clock hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of n runs: the median, and the 20th and 80th percentile."""

    median_s: float
    p20_s: float
    p80_s: float
    runs: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        if len(seconds) < 2:
            return cls(seconds[0], seconds[0], seconds[0], 1)
        deciles = statistics.quantiles(seconds, n=10, method="inclusive")
        return cls(statistics.median(seconds), deciles[1], deciles[7], len(seconds))


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    runs: int,
    warm_up: int = 1,
    device: torch.device | None = None,
    calls: int = 1,
) -> dict[str, Timing]:
    """Each contestant once per round, for warm_up + runs rounds; the device's queue is empty at both ends.

    A turn is `calls` calls, for what is as short as its launch; a timing is of one of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(warm_up + runs):
        for name, run in contestants.items():
            _drain(device)
            start = time.perf_counter()
            for _ in range(calls):
                run()
            _drain(device)
            if round_ >= warm_up:
                seconds[name].append((time.perf_counter() - start) / calls)
    return {name: Timing.of(values) for name, values in seconds.items()}


def _drain(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
