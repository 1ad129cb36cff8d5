"""Is B as fast as A? `hyvideo-rt bench compare A.json B.json [--margin 0.1]`.

Two results of one benchmark. What is compared are the ratios in them, of contestants that took turns in one
process: they mean the same on a fast machine and on a slow one, seconds do not. Exit status 0 only if none of
B's is worse than A's by more than the margin, its interval included, none is missing, and none is of too few
rounds to tell. `bench/baselines/` is A in CI.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hyvideo_rt.bench.markdown import ratio_of
from hyvideo_rt.bench.quality_tables import lossy_words
from hyvideo_rt.bench.timing import Ratio
from hyvideo_rt.errors import InvalidRequest

SAME = ("weights", "sizes", "steps", "precision")  # conditions that both results must agree in
NAMES = ("backend", "stage", "kernel", "size", "rung")  # of a row
PASSES = ("same", "faster")


@dataclass(frozen=True)
class Verdict:
    """Of one ratio of A's, such as `video eager`: missing if B has none, unsure if B's has no interval."""

    name: str
    before: Ratio
    after: Ratio | None
    margin: float

    @property
    def word(self) -> Literal["slower", "faster", "same", "missing", "unsure"]:
        if self.after is None:
            return "missing"
        if self.after.low is None or self.after.high is None:
            return "unsure"
        if self.after.high < self.before.median * (1 - self.margin):
            return "slower"
        return "faster" if self.after.low > self.before.median * (1 + self.margin) else "same"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--margin", type=float, default=0.1, help="share that may be lost (0.1)")
    args = parser.parse_args()
    verdicts = compare(load(args.before), load(args.after), args.margin)
    for each in verdicts:
        print(f"{each.word:7}  {each.name}: {each.before} before, {each.after or 'nothing'} now")
    return int(any(each.word not in PASSES for each in verdicts))


def compare(before: Mapping[str, Any], after: Mapping[str, Any], margin: float) -> list[Verdict]:
    """A verdict for every ratio of the first. Raises InvalidRequest for what cannot be compared."""
    for name in SAME:
        one, other = (result["conditions"].get(name) for result in (before, after))
        if one != other:
            raise InvalidRequest(
                f"got results of {name} {one} and {other}; expected the same of both\n"
                f"  measure again with the first one's settings"
            )
    first, second = dict(ratios_of(before)), dict(ratios_of(after))
    if not first.keys() & second.keys():
        raise InvalidRequest(
            f"got the ratios {sorted(first)} and {sorted(second)}; expected some that both have\n"
            f"  compare two results of one benchmark"
        )
    return [Verdict(name, ratio, second.get(name), margin) for name, ratio in first.items()]


def ratios_of(part: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Ratio]]:
    """Every ratio in a result, under the names on the way to it; in a list, under its row's own names.

    A lossy row's is nowhere without what that does to videos.
    """
    if isinstance(part, Mapping):
        if {"median", "low", "high"} <= set(part):
            yield " ".join(path), ratio_of(part)
            return
        for name, each in part.items():
            yield from ratios_of(
                each, path if name in ("stages", "ratios", "ratio", "rows") else (*path, name)
            )
    elif isinstance(part, list):
        for row in (each for each in part if isinstance(each, Mapping)):
            names = [str(row[key]) for key in NAMES if key in row]
            lossy = [lossy_words(row["quality"])] if row.get("quality") else []
            yield from ratios_of(row, (*path, *names, *lossy))


def load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"cannot read {path}: {error}\n  give a result that --out has written"
        ) from error
    if not isinstance(content, dict) or "conditions" not in content:
        raise InvalidRequest(f"got {path}, which is no result of a benchmark: it has no conditions")
    return content


if __name__ == "__main__":
    sys.exit(main())
