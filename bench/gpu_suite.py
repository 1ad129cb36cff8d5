"""All that matters on a GPU, most valuable first: `hyvideo-rt bench gpu-suite --minutes 50 --out FOLDER`.

Parts (`gpu_parts.py`) are processes of their own, each within a limit; what they find they write at once.
Call it again with the same folder until all has passed, ten minutes at a time if a machine is lent so: what
has passed with this code on this GPU is kept, what has not been tried comes before what failed or was cut,
and a part begins only if the time it is expected to take is left. No network is needed. Weights are random:
times are real, pictures are not. `--rehearse` runs the parts at small sizes on this machine, whatever it has.
"""

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hyvideo_rt.attention import Setting, choose_attention
from hyvideo_rt.bench.conditions import machine
from hyvideo_rt.bench.gpu_outcomes import (
    CODE,
    Outcome,
    State,
    counts,
    earlier,
    set_aside,
    settle,
    sources,
    write,
)
from hyvideo_rt.bench.gpu_parts import PARTS, Part
from hyvideo_rt.bench.markdown import ROOT
from hyvideo_rt.cli.ops_choice import attention_cache
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.kernels.attention_backends import BACKENDS

MINUTES = 50
LEAST_S = 20  # below it no part of a rehearsal is begun


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"in all ({MINUTES})")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--attention",
        choices=["auto", *BACKENDS],
        default="auto",
        help="of the parts that choose one (auto: the fastest lossless one that works here)",
    )
    parser.add_argument("--parts", nargs="+", metavar="NAME", choices=[part.name for part in PARTS])
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args()
    gpu = torch.cuda.is_available()
    if not (gpu or args.rehearse):
        raise InvalidRequest(
            "got no CUDA GPU; expected one\n  --rehearse runs the same parts at small sizes on a CPU"
        )
    if not (ROOT / "tests").is_dir():
        raise InvalidRequest(f"got no tests in {ROOT}; expected a checkout\n  git clone, and run it there")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends the part, too
    wanted = [part for part in PARTS if not args.parts or part.name in args.parts]
    attention, _ = choose_attention(
        args.attention, Setting(torch.device("cuda" if gpu else "cpu")), attention_cache()
    )
    outcomes = run_all(wanted, args.out, 60 * args.minutes, attention, small=args.rehearse)
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
    """What became of each part that can run here; `suite.json` in the folder knows of all that ever did."""
    folder.mkdir(parents=True, exist_ok=True)
    end, known = time.monotonic() + seconds, earlier(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about, outcomes = machine(device) | {"attention": attention}, list[Outcome]()
    plans = [(part, planned(part, about, device, small)) for part in parts if part.small or not small]
    now = [(part, kept(plan, known.get(part.name)), plan) for part, plan in plans]
    for part, outcome, plan in sorted(now, key=lambda each: each[1].state != "not started"):
        left_s, needed_s = end - time.monotonic(), LEAST_S if small else part.expected_s
        if outcome.state != "passed" and left_s >= needed_s:
            set_aside(folder / plan.result, again=outcome.state != "not started")
            write(folder, about, known | {part.name: replace(plan, state="cut", reason="killed")})
            outcome = known[part.name] = run(plan, folder, min(part.limit_s, left_s))
            settle(folder / plan.result, passed=outcome.state == "passed")
            write(folder, about, known)
        say(str(outcome))
        outcomes.append(outcome)
    return outcomes


def planned(part: Part, about: Mapping[str, object], device: torch.device, small: bool) -> Outcome:
    """Of the digest, tests are a part where they are what runs."""
    flags = part.small if small else part.command
    command = shlex.join(["python", "-m", *(word.format_map(about) for word in flags)])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    digest = sources(*CODE, *(["tests"] if flags[0] == "pytest" else []))
    return Outcome(part.name, command, digest, name, str(about["commit"]))


def kept(plan: Outcome, before: Outcome | None) -> Outcome:
    """What is known of this very work."""
    return before if before and before.same_work(plan) else plan


def run(plan: Outcome, folder: Path, limit_s: float) -> Outcome:
    """In the root of the checkout; its log is beside its result."""
    result = folder.resolve() / plan.result
    words = [str(result) if word == plan.result else word for word in shlex.split(plan.command)[1:]]
    start, log = time.monotonic(), result.with_suffix(".log")
    with log.open("w") as output:
        code = _ended([sys.executable, *words], output.fileno(), limit_s)
    tests = counts(result) if result.suffix == ".xml" and result.exists() else None
    state, reason = judged(code, tests, log.read_text(errors="replace"), limit_s)
    return replace(plan, state=state, reason=reason, tests=tests, seconds=round(time.monotonic() - start, 1))


def judged(code: int | None, tests: Mapping[str, int] | None, log: str, limit_s: float) -> tuple[State, str]:
    """code is None for a part that was cut. Tests that were all skipped have tested nothing."""
    if code is None:
        return "cut", f"after {limit_s:.0f} s"
    if code < 0:
        return "failed", f"ended by {signal.Signals(-code).name}"
    if code:
        return "failed", (log.strip() or "it said nothing").splitlines()[-1][:200]
    if tests is not None and not tests["passed"]:
        return "failed", "no test ran"
    return "passed", ""


def _ended(command: Sequence[str], output: int, limit_s: float) -> int | None:
    """The exit status, or None past the limit. What it started ends with it and leaves the GPU's memory."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, 0)  # a signal that ends `wait` may leave its lock taken for ever


if __name__ == "__main__":
    sys.exit(main())
