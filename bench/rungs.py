"""The rungs of a ladder: each is made and called, then all are raced turn by turn. Rows are kept at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.bench.limits import Limits, name_of
from hyvideo_rt.bench.memory import Watch
from hyvideo_rt.bench.timing import LEAST_ROUNDS, Ratio, Timing, race, timed
from hyvideo_rt.bench.work import Flops

Run = Callable[[], Tensor]
Row = dict[str, Any]


@dataclass(frozen=True)
class Rung:
    """dtype is what it computes in, but for what the setting rounds to 8 bits.

    quality, of a lossy one, with fewer bits than the ladder's default, is the setting of `bench.quality` that
    tells what this does to videos: "fp32" tells it of bf16. make loads and builds; what it raises is the
    reason why this rung did not run. compiles: the first call does more than the others.
    """

    name: str
    make: Callable[[], Run]
    dtype: torch.dtype
    quality: str | None = None
    compiles: bool = True


def climb(
    rungs: Sequence[Rung],
    flops: Flops,
    limit: Limits,
    device: torch.device,
    runs: int,
    keep: Callable[[list[Row]], None],
) -> None:
    """A row per rung: first call, memory, seconds, share of the limit, the first rung's time over its own.

    Its result is compared with the first one's, as |difference| / |first|, Euclidean. keep gets all rows
    after every first call and every round. Where too few rounds are asked for to tell more than the medians,
    the first is at once: the first call itself if it compiles nothing, or the one after it.
    """
    ready: dict[str, Run] = {}
    found: dict[str, Row] = {}
    early: dict[str, list[float]] = {}
    first: Tensor | None = None
    few = runs < LEAST_ROUNDS

    def rows(rounds: Mapping[str, list[float]]) -> None:
        all_ = {name: early[name] + rounds.get(name, []) for name in ready}
        keep([about(rung) | raced(rung, all_, flops, limit) | found.get(rung.name, {}) for rung in rungs])

    for rung in rungs:
        try:
            run, out, row = begin(rung, device)
            first = out if first is None else first
            row["difference"] = relative_difference(out, first)
            seconds = timed(run, device)[0] if few and rung.compiles else row["first_s"]
        except Exception as error:
            row = {"reason": reason_of(error)}
        else:
            ready[rung.name], early[rung.name] = run, [seconds] if few else []
        found[rung.name] = row
        rows({})
    warm_up = int(device.type == "cpu" and not few)  # on a GPU a call is seconds and has been made once
    race(ready, runs - few, warm_up, device=device, after_round=rows)


def begin(rung: Rung, device: torch.device) -> tuple[Run, Tensor, Row]:
    """What to call, its first result on the host, and the seconds and the memory that this took."""
    watch = Watch(device)
    run = rung.make()
    seconds, out = timed(run, device)
    out = out.cpu()
    return run, out, {"first_s": seconds} | asdict(watch.memory())


def reason_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def relative_difference(out: Tensor, first: Tensor) -> float:
    return float(f"{((out.float() - first.float()).norm() / first.float().norm()).item():.3g}")


def about(rung: Rung) -> Row:
    return {"rung": rung.name, "quality": rung.quality, "dtype": name_of(rung.dtype)}


def raced(rung: Rung, rounds: Mapping[str, list[float]], flops: Flops, limit: Limits) -> Row:
    """Nothing of a rung that has not been timed yet."""
    seconds = rounds.get(rung.name)
    if not seconds:
        return {}
    timing, least_s = Timing.of(seconds), limit.least_s(flops, rung.dtype, rung.quality)
    row: Row = asdict(timing) | {
        "tf_s": float(f"{flops.total / timing.median_s / 1e12:.4g}"),
        "least_s": least_s,
        "share_of_limit": round(least_s / timing.median_s, 4),
    }
    first = next(iter(rounds))
    if first != rung.name:
        row["ratio"] = asdict(Ratio.of(rounds[first], seconds)) | {"of": first}
    return row
