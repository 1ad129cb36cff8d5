"""Everything that clients do, for hours if one likes, while the server's and its worker's memory is sampled.

Memory grows if the median of the last tenth lies above that of the tenth after the warm-up by more than a
limit. The same is asked of a server that is made to leak: who finds nothing there finds nothing anywhere.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from hyvideo_rt.bench.server_process import SERVE, running_server
from hyvideo_rt.bench.stress_aftermath import named
from hyvideo_rt.bench.stress_jobs import Leftovers
from hyvideo_rt.bench.stress_visits import Visitors

MIB = 1 << 20
LIMIT_BYTES = 50 * MIB
WARM_UP = TENTH = 0.1  # of the time
EVERY_S, KEPT = 5.0, 100  # between samples; of them in the result
# Runs the real server, and keeps 64 KiB of every request: only to show that the measurement sees it.
LEAKING = """
import sys
from hyvideo_rt.cli.main import main
from hyvideo_rt.server import requests

kept, report = [], requests.Observe._report

def keep(*args):
    kept.append(b"x" * 65536)
    report(*args)

requests.Observe._report = keep
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Sample:
    """Of one process: seconds since the start, resident bytes, open files and threads."""

    at_s: float
    bytes: int
    open_files: int
    threads: int


@dataclass(frozen=True)
class Growth:
    """early and late: medians of the tenth after the warm-up and of the last one; slope by least squares."""

    early_bytes: int
    late_bytes: int
    grew_bytes: int
    slope_bytes_per_hour: int
    grows: bool


def judge(samples: Sequence[Sample]) -> Growth:
    """Raises ValueError for samples that leave a tenth of the time empty."""
    end_s = samples[-1].at_s
    steady = [sample for sample in samples if sample.at_s >= WARM_UP * end_s]
    early = [sample.bytes for sample in steady if sample.at_s < (WARM_UP + TENTH) * end_s]
    late = [sample.bytes for sample in steady if sample.at_s >= (1 - TENTH) * end_s]
    if not early or not late:
        raise ValueError(f"got {len(samples)} samples over {end_s:.0f} s; expected some in each tenth of it")
    before, after = round(statistics.median(early)), round(statistics.median(late))
    line = statistics.linear_regression([s.at_s / 3600 for s in steady], [s.bytes for s in steady])
    grew = after - before
    return Growth(before, after, grew, round(line.slope), grew > LIMIT_BYTES)


def sample(pid: int, at_s: float) -> Sample:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Sample(round(at_s, 1), int(status["VmRSS"].split()[0]) * 1024, files, int(status["Threads"]))


@dataclass(frozen=True)
class Soaked:
    """One server's run: samples of its processes by name."""

    samples: dict[str, list[Sample]]
    visits: dict[str, int]
    answers: dict[int, int]
    completed: int
    troubles: dict[str, list[str]]

    @property
    def growth(self) -> dict[str, Growth]:
        return {name: judge(samples) for name, samples in self.samples.items()}

    @property
    def violations(self) -> dict[str, list[str]]:
        grown = [f"{name} by {growth.grew_bytes}" for name, growth in self.growth.items() if growth.grows]
        found = self.troubles | {"memory grew": grown}
        return {what: which for what, which in found.items() if which}

    def to_json(self) -> dict[str, Any]:
        """One sample in so many that a hundred or so are left."""
        return {
            "minutes": round(self.samples["server"][-1].at_s / 60, 1),
            "visits": self.visits,
            "answers": self.answers,
            "videos_completed": self.completed,
            "growth": {name: asdict(growth) for name, growth in self.growth.items()},
            "columns": [field.name for field in fields(Sample)],
            "samples": {
                name: [astuple(each) for each in samples[:: max(1, len(samples) // KEPT)]]
                for name, samples in self.samples.items()
            },
        }


def soak(minutes: float, control_minutes: float, seed: int) -> dict[str, object]:
    """violations: memory that grew, answers that were not as expected, a leak that was not found."""
    sound = soaked(minutes, seed)
    leaking = soaked(control_minutes, seed, ("-c", LEAKING))
    violations = {what: named(which) for what, which in sound.violations.items()}
    if not leaking.growth["server"].grows:
        grew = str(leaking.growth["server"].grew_bytes)
        violations["a leak was not found"] = named([grew])
    return {
        "limit_bytes": LIMIT_BYTES,
        "sound": sound.to_json(),
        "leaking_on_purpose": leaking.to_json(),
        "violations": violations,
    }


def soaked(minutes: float, seed: int, program: Sequence[str] = SERVE) -> Soaked:
    with tempfile.TemporaryDirectory() as folder:
        with running_server(Path(folder) / "data", program=program) as server:
            worker = server.worker
            assert worker, "the server is ready"
            pids = {"server": server.pid, "worker": worker.pid}
            visitors = Visitors(server.url, seed)
            try:
                samples = _sampled(pids, 60 * minutes)
            finally:
                visitors.leave()
            replaced = server.worker != worker
        left = Leftovers.of(server.data_dir)
    troubles = {
        "unexpected answers": visitors.unexpected,
        "errors in its log": server.log.troubles,
        "another worker": ["the first one ended"] if replaced else [],
        "files left": [*left.files, *left.partial],
        "integrity": [left.integrity] if left.integrity != "ok" else [],
    }
    return Soaked(samples, visitors.visits, visitors.answers, server.log.completed, troubles)


def _sampled(pids: Mapping[str, int], seconds: float) -> dict[str, list[Sample]]:
    start, every_s = time.monotonic(), min(EVERY_S, seconds / 100)
    samples: dict[str, list[Sample]] = {name: [] for name in pids}
    while (now := time.monotonic() - start) < seconds:
        for name, pid in pids.items():
            samples[name].append(sample(pid, now))
        time.sleep(every_s)
    return samples
