"""The one stopwatch: contestants take turns in one process, so a drifting clock hits all of them alike."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

RESAMPLES = 2000
LEAST_ROUNDS = 5  # for an interval
Result = TypeVar("Result")


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


@dataclass(frozen=True)
class Ratio:
    """Of two contestants' medians, with the 95 % interval of a bootstrap over the rounds.

    A win is a ratio whose interval lies above 1, a loss one below; in between nothing is known. Of fewer than
    five rounds there is no interval (None) and no verdict: a bootstrap can only repeat what it was given.
    """

    median: float
    low: float | None
    high: float | None
    rounds: int

    def __str__(self) -> str:
        """With its interval; where that includes 1, no ratio is claimed."""
        if self.low is None or self.high is None:
            return f"{self.median:.2f} ({self.rounds} rounds, no interval)"
        interval = f"{self.low:.2f}-{self.high:.2f}"
        return f"no difference ({interval})" if self.verdict == "tie" else f"{self.median:.2f} ({interval})"

    @property
    def verdict(self) -> Literal["win", "loss", "tie", "unknown"]:
        if self.low is None or self.high is None:
            return "unknown"
        if self.low > 1:
            return "win"
        return "loss" if self.high < 1 else "tie"

    @classmethod
    def of(cls, slower: Sequence[float], faster: Sequence[float]) -> "Ratio":
        """slower / faster, seconds of the same rounds: rounds are drawn again together, 2000 times."""
        count, median = len(faster), _ratio(slower, faster)
        if count < LEAST_ROUNDS:
            return cls(median, None, None, count)
        rng, drawn = random.Random(0), []
        for _ in range(RESAMPLES):
            picked = rng.choices(range(count), k=count)
            drawn.append(_ratio([slower[i] for i in picked], [faster[i] for i in picked]))
        cuts = statistics.quantiles(drawn, n=40, method="inclusive")
        return cls(median, cuts[0], cuts[-1], count)


def _ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    return statistics.median(slower) / statistics.median(faster)


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    runs: int,
    warm_up: int = 1,
    device: torch.device | None = None,
    calls: int = 1,
) -> dict[str, Timing]:
    """The timings of `race`."""
    rounds = race(contestants, runs, warm_up, device, calls)
    return {name: Timing.of(seconds) for name, seconds in rounds.items()}


def race(
    contestants: Mapping[str, Callable[[], object]],
    runs: int,
    warm_up: int = 1,
    device: torch.device | None = None,
    calls: int = 1,
    after_round: Callable[[Mapping[str, list[float]]], None] | None = None,
) -> dict[str, list[float]]:
    """Seconds of every counted round: each contestant once per round, for warm_up + runs rounds.

    The device's queue is empty at both ends. A turn is `calls` calls, for what is as short as its launch; a
    timing is of one of them. after_round gets what has been counted so far, for a race that may be cut.
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
        if after_round and round_ >= warm_up:
            after_round(seconds)
    return seconds


def timed(run: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    """Seconds of one call, and what it gave."""
    _drain(device)
    start = time.perf_counter()
    result = run()
    _drain(device)
    return time.perf_counter() - start, result


def _drain(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
