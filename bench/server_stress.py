"""What the real server survives, on the embedded model: `python -m hyvideo_rt.bench.server_stress`.

kills: `kill -9` of the server and of its worker under traffic; cancels: at every moment of a video's life;
malformed: requests as no client should send them; soak: memory while clients do everything. The result is
written after each part, beside the parts that the file has already. Exits with 1 if anything was violated.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hyvideo_rt.bench import stress_cancels, stress_kills, stress_malformed, stress_soak, stress_visits
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.buckets import PRESETS
from hyvideo_rt.pipeline import Precision

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Part:
    """steps: of one video, at most."""

    run: Callable[[argparse.Namespace], Mapping[str, object]]
    steps: int
    presets: tuple[str, ...] = ("tiny-square",)

    @property
    def workload(self) -> Workload:
        sizes = sorted({str(PRESETS[name]) for name in self.presets})
        return Workload("tiny", sizes, self.steps, str(Precision.default(CPU)), ["eager"])


PARTS: Mapping[str, Part] = {
    "kills": Part(lambda args: stress_kills.kills(args.kills, args.seed), stress_kills.STEPS),
    "cancels": Part(lambda args: stress_cancels.cancels(args.cancels, args.seed), stress_cancels.STEPS),
    "malformed": Part(
        lambda args: stress_malformed.malformed(args.malformed, args.seed), stress_malformed.STEPS
    ),
    "soak": Part(
        lambda args: stress_soak.soak(args.soak_minutes, args.soak_minutes / 10, args.seed),
        stress_visits.STEPS,
        stress_visits.PRESETS,
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--cancels", type=int, default=1000)
    parser.add_argument("--malformed", type=int, default=20000, help="requests")
    parser.add_argument(
        "--soak-minutes", type=float, default=60, help="and a tenth as long for a leaking server"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    violated = False
    for name in args.parts:
        part = PARTS[name]
        found = {"conditions": conditions(CPU, part.workload)}  # of now: a part may take an hour
        result = {**found, "seed": args.seed, **part.run(args)}
        print(json.dumps({name: result}, indent=2), flush=True)
        violated |= bool(result["violations"])
        if args.out:
            merge(args.out, name, result)
    return int(violated)


def merge(out: Path, name: str, result: Mapping[str, Any]) -> None:
    """This part into the file, the others as they are there; whole or not at all."""
    parts = json.loads(out.read_text()) if out.exists() else {}
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(parts | {name: result}, indent=2) + "\n")
    partial.replace(out)


if __name__ == "__main__":
    sys.exit(main())
