"""Kills server and worker at every durable operation and checks what a new server makes of it.

    python tests/server/kill_points.py --all --out bench/results/cpu/kill_points.json

Each chapter of `kill_chapters` is run once to see its points, then once per point in a forked process that is
killed there. A second server on the same folder brings everything to its end, and `kill_checks` says what is
wrong then; under `--all` every third one is killed itself and followed by another. Last come `kill_defects`,
each of which has to be found. The exit status is 1 if anything is wrong.
"""

import argparse
import collections
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kill_chapters import CHAPTERS
from kill_defects import DEFECTS, Defect
from kill_run import KILLED, Run, survey
from kill_switch import Point
from stubs import film

WORKER_CHAPTERS = ("starting", "making", "failing", "cancelling", "deleting")
MOST_TIMES = 2  # of one operation in one chapter: more of the same is not another point
IN_EVERY_CHAPTER = ("database.", "outputs.__init__", "worker_process start", "worker_process receive Ready")
CHAPTERS_OF_STARTS = ("starting", "recovering", "setting a damaged database aside")
SECOND_EVERY = 3  # of the first kills are followed by one in the recovery
TRIES = 3


@dataclass(frozen=True)
class Case:
    """One kill of the server or of a worker; or two: `second` is met by the server that comes after.

    always: every worker that comes to the point is killed, not only the first.
    """

    chapter: str
    server: Point | None = None
    worker: str | None = None
    always: bool = False
    second: Point | None = None

    @property
    def kind(self) -> str:
        if self.server:
            return f"server {self.server.when} {self.server.operation}"
        when, what, _ = str(self.worker).split(":")
        return f"worker {when} {what}{', every attempt' if self.always else ''}"

    @property
    def order(self) -> str | None:
        """For the worker's command."""
        return f"{'kills' if self.always else 'kill'}={self.worker}" if self.worker else None

    def __str__(self) -> str:
        then = f", then {self.second}" if self.second else ""
        return f"{self.chapter}: {self.server or self.order}{then}"


@dataclass(frozen=True)
class Verdict:
    """killed: how many of the case's points were reached."""

    case: Case
    killed: int
    violations: Sequence[str]

    def __str__(self) -> str:
        return f"{self.case}: {'; '.join(self.violations) or ('not reached', 'ok', 'ok, twice')[self.killed]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="every point, and second kills")
    parser.add_argument("--points", type=int, default=24, help="without --all: so many, evenly spread")
    parser.add_argument("--chapter", choices=CHAPTERS, help="of this one alone")
    parser.add_argument("--lanes", type=int, default=2, help="cases at the same time")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    head = {"conditions": _conditions()} if args.out else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = Run(folder, film(folder))
        cases = all_cases(run, [args.chapter] if args.chapter else list(CHAPTERS))
        if not args.all:
            cases = spread(cases, args.points)
        elif not args.chapter:
            cases += second_kills(run, cases)
        verdicts = in_lanes(cases, lambda case, number: judge(run, case, number), args.lanes)
        result = summary(verdicts, len(cases)) | {
            "defects": {n: found(run, n, d) for n, d in DEFECTS.items()}
        }
    text = json.dumps(head | result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    return 1 if result["violations"] or "not found" in result["defects"].values() else 0


def all_cases(run: Run, chapters: Sequence[str]) -> list[Case]:
    cases = []
    for name in chapters:
        server, worker = survey(run, name)
        cases += [Case(name, server=point) for point in server if is_another(point, name)]
        if name in WORKER_CHAPTERS:
            cases += [Case(name, worker=point) for point in worker]
        if name == "making":  # every attempt fails: the video does, for good
            cases += [Case(name, worker=point, always=True) for point in worker if "ready" not in point]
    return cases


def is_another(point: Point, chapter: str) -> bool:
    """How a server starts and ends counts in few chapters only."""
    usual = point.operation.startswith(IN_EVERY_CHAPTER) and chapter not in CHAPTERS_OF_STARTS
    return point.nth <= MOST_TIMES and not usual


def second_kills(run: Run, cases: Sequence[Case]) -> list[Case]:
    """First kills once more, each with a kill in the recovery from it: its points in turn."""
    points, _ = survey(run, "recovering")
    firsts = [case for case in cases if case.server][::SECOND_EVERY]
    return [replace(case, second=points[i % len(points)]) for i, case in enumerate(firsts)]


def spread(cases: Sequence[Case], count: int) -> list[Case]:
    return [cases[i * len(cases) // count] for i in range(count)] if count < len(cases) else list(cases)


def judge(run: Run, case: Case, number: int) -> Verdict:
    """Times differ from run to run: a point that was not reached is tried again."""
    for attempt in range(TRIES):
        folder = run.folder / f"{number}-{attempt}"
        first = run.live(folder, case.chapter, case.server, case.order)
        reached = first == KILLED if case.server else (folder / "stub" / "killed").exists()
        if first not in (0, KILLED):
            return Verdict(case, int(reached), [f"the first server: {run.words(folder)}"])
        if not reached:
            continue
        killed, ended = 1, KILLED
        if case.second:
            ended, _ = run.verify(folder, case.chapter, case.second)
            killed += ended == KILLED
        if ended == KILLED:
            ended, found = run.verify(folder, case.chapter, None)
        else:
            found = run.found(folder)
        if ended != 0:
            found = [f"the second server: {run.words(folder)}"]
        if not found:
            run.forget(folder)
        return Verdict(case, killed, found)
    return Verdict(case, 0, [])


def found(run: Run, name: str, defect: Defect) -> str:
    """What the checks say of a server with this defect, if they say what they should."""
    broken = replace(run, folder=run.folder / name, defect=defect.put_in)
    broken.folder.mkdir()
    said = judge(broken, Case(defect.chapter, defect.point), 0).violations
    return next((words for words in said if defect.shown in words), "not found")


def in_lanes(cases: Sequence[Case], act: Callable[[Case, int], Verdict], lanes: int) -> list[Verdict]:
    """Processes beside each other, each a case after the other; they fork, so they have no threads."""
    readers = []
    for lane in range(lanes):
        reader, writer = os.pipe()
        if os.fork() == 0:
            with os.fdopen(writer, "w") as out:
                for number in range(lane, len(cases), lanes):
                    verdict = act(cases[number], number)
                    print(f"{number + 1}/{len(cases)} {verdict}", file=sys.stderr)
                    out.write(json.dumps([number, verdict.killed, verdict.violations]) + "\n")
                    out.flush()
            os._exit(0)
        os.close(writer)
        readers.append(os.fdopen(reader))
    found = [json.loads(line) for reader in readers for line in reader]
    for _ in readers:
        os.wait()
    return [Verdict(cases[number], killed, said) for number, killed, said in sorted(found)]


def summary(verdicts: Sequence[Verdict], expected: int) -> dict[str, Any]:
    """Only what was reached counts as a point."""
    reached = [verdict for verdict in verdicts if verdict.killed]
    first = [verdict.case for verdict in reached if not verdict.case.second]
    wrong = [f"{verdict.case}: {words}" for verdict in verdicts for words in verdict.violations]
    if len(verdicts) < expected:
        wrong.append(f"{expected - len(verdicts)} cases have no verdict")
    return {
        "points": len(first),
        "server_points": sum(1 for case in first if case.server),
        "worker_points": sum(1 for case in first if case.worker),
        "kills_during_recovery": sum(verdict.killed == 2 for verdict in reached),
        "kills": sum(verdict.killed for verdict in reached),
        "by_kind": dict(sorted(collections.Counter(case.kind for case in first).items())),
        "not_reached": [str(verdict.case) for verdict in verdicts if not verdict.killed],
        "violations": wrong,
    }


def _conditions() -> dict[str, object]:
    import torch

    from hyvideo_rt.bench.conditions import Workload, conditions

    stub = Workload("none", ["64x64x17"], 4, "none", ["a stub that has one film"])
    return conditions(torch.device("cpu"), stub)


if __name__ == "__main__":
    sys.exit(main())
