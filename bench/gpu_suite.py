"""All that matters on a GPU, most valuable first: `hyvideo-rt bench gpu-suite --minutes 30 --out FOLDER`.

Parts are processes of their own, each within a limit; what they find they write at once. What has ended is
not run again when the suite is called again with the same folder and commit: it may be cut at any moment.
No network is needed. Weights are random: times are real, pictures are not. `--rehearse` runs the same parts
at small sizes on this machine, whatever it has, to see that they run.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from hyvideo_rt.bench.conditions import machine
from hyvideo_rt.errors import InvalidRequest

State = Literal["passed", "failed", "cut", "not started"]
LEAST_S = 20  # below it no part is begun
ENDED: tuple[State, ...] = ("passed", "failed")


@dataclass(frozen=True)
class Part:
    """command: the module and its flags, in a Python of its own; {out} is its result, {attention} the choice.

    small replaces the flags in a rehearsal.
    """

    name: str
    limit_s: int
    command: tuple[str, ...]
    small: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """Of one part; a cut one may have written a part of its result."""

    part: str
    state: State
    seconds: float
    command: str
    commit: object


LARGE, SMALL = "720x1280x129", "544x960x129"
STEPS = "hyvideo_rt.bench.steps"
PARTS = (
    Part(
        "correctness of kernels",
        240,
        ("pytest", "-q", "-m", "gpu", "tests/kernels", "tests/models"),
        ("pytest", "-q", "tests/bench/test_timing.py"),
    ),
    Part(
        "correctness of networks",
        240,
        (
            *("pytest", "-q", "-m", "gpu", "tests", "--ignore=tests/kernels", "--ignore=tests/models"),
            *("--ignore=tests/cli", "--ignore=tests/test_video.py", "--ignore=tests/test_video_faults.py"),
        ),
        ("pytest", "-q", "tests/bench/test_timing.py"),
    ),
    Part(
        "kernels",
        180,
        ("hyvideo_rt.bench.kernels", "--runs", "3", "--out", "{out}"),
        ("hyvideo_rt.bench.kernels", "--runs", "1", "--out", "{out}"),
    ),
    Part(
        "step at 544x960x129",
        480,
        (
            *(STEPS, "--stages", "denoise", "--sizes", SMALL, "--runs", "3"),
            *("--attention", "{attention}", "--out", "{out}"),
        ),
        (STEPS, "--stages", "denoise", "--sizes", "64x64x17", "--runs", "2", "--out", "{out}"),
    ),
    Part(  # 15 to 60 s a step: the rungs that say most
        "step at 720x1280x129",
        570,
        (
            *(STEPS, "--stages", "denoise", "--sizes", LARGE, "--runs", "2", "--rungs"),
            *("diffusers", "diffusers, compiled", "hyvideo_rt", "{attention} attention"),
            *("engines of inductor", "fp8 attention", "--attention", "{attention}", "--out", "{out}"),
        ),
        (STEPS, "--stages", "denoise", "--sizes", "64x96x17", "--runs", "2", "--out", "{out}"),
    ),
    Part(
        "decode",
        240,
        (STEPS, "--stages", "decode", "--sizes", SMALL, LARGE, "--runs", "2", "--out", "{out}"),
        (STEPS, "--stages", "decode", "--sizes", "64x64x17", "--runs", "2", "--out", "{out}"),
    ),
    Part(
        "engines",
        420,
        ("hyvideo_rt.bench.engines", "--gpu", "--runs", "2", "--out", "{out}"),
        ("hyvideo_rt.bench.engines", "--runs", "2", "--sizes", "64x64x17", "--out", "{out}"),
    ),
    Part(
        "whole video at 544x960x129",
        540,
        ("hyvideo_rt.bench.request", "--size", SMALL, "--attention", "{attention}", "--out", "{out}"),
        ("hyvideo_rt.bench.request", "--steps", "4", "--out", "{out}"),
    ),
    Part(
        "memory",
        180,
        (
            *("hyvideo_rt.bench.footprint", "--sizes", SMALL, LARGE, "--attention", "{attention}"),
            *("--out", "{out}"),
        ),
        ("hyvideo_rt.bench.weights", "--gib", "0.1", "--out", "{out}"),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30, help="in all; no part is begun after them (30)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--attention", default="fa3", help="lossless, of the parts that choose one (fa3)")
    parser.add_argument("--parts", nargs="+", metavar="NAME", choices=[part.name for part in PARTS])
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args()
    if not (torch.cuda.is_available() or args.rehearse):
        raise InvalidRequest(
            "got no CUDA GPU; expected one\n  --rehearse runs the same parts at small sizes on a CPU"
        )
    wanted = [part for part in PARTS if not args.parts or part.name in args.parts]
    outcomes = run_all(wanted, args.out, 60 * args.minutes, args.attention, small=args.rehearse)
    return int(any(outcome.state != "passed" for outcome in outcomes))


def run_all(
    parts: Sequence[Part],
    folder: Path,
    seconds: float,
    attention: str,
    *,
    small: bool,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """What became of each part; `suite.json` in the folder holds it from the first part on."""
    folder.mkdir(parents=True, exist_ok=True)
    about = machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    before = earlier(folder, about["commit"])
    end, outcomes = time.monotonic() + seconds, list[Outcome]()
    for part in parts:
        outcome = before.get(part.name) or run(part, folder, end, attention, about["commit"], small=small)
        say(f"{outcome.state:11} {outcome.seconds:6.0f} s  {part.name}")
        outcomes.append(outcome)
        state = {"conditions": about, "parts": [asdict(each) for each in outcomes]}
        (folder / "suite.json").write_text(json.dumps(state, indent=2) + "\n")
    return outcomes


def run(part: Part, folder: Path, end: float, attention: str, commit: object, *, small: bool) -> Outcome:
    stem = part.name.replace(" ", "-")
    flags = part.small if small else part.command
    words = [word.format(out=folder / f"{stem}.json", attention=attention) for word in flags]
    shown, limit_s = " ".join(["python -m", *words]), min(part.limit_s, end - time.monotonic())
    if limit_s < LEAST_S:
        return Outcome(part.name, "not started", 0, shown, commit)
    start = time.monotonic()
    with (folder / f"{stem}.log").open("w") as log:
        try:
            done = subprocess.run(
                [sys.executable, "-m", *words], stdout=log, stderr=subprocess.STDOUT, timeout=limit_s
            )
            state: State = "failed" if done.returncode else "passed"
        except subprocess.TimeoutExpired:
            state = "cut"
    return Outcome(part.name, state, round(time.monotonic() - start, 1), shown, commit)


def earlier(folder: Path, commit: object) -> dict[str, Outcome]:
    """Parts that ended in an earlier call, of this commit."""
    path = folder / "suite.json"
    if not path.exists():
        return {}
    outcomes = [Outcome(**each) for each in json.loads(path.read_text())["parts"]]
    return {each.part: each for each in outcomes if each.state in ENDED and each.commit == commit}


if __name__ == "__main__":
    sys.exit(main())
