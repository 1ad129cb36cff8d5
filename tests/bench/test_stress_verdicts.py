"""What the stress of the server calls broken: promises about jobs, and memory that grows."""

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyvideo_rt.bench import server_stress
from hyvideo_rt.bench.server_process import Log
from hyvideo_rt.bench.server_stress import Part, main, merge
from hyvideo_rt.bench.stress_jobs import Content, Ending, Leftovers, Tale, broken_promises
from hyvideo_rt.bench.stress_malformed import Answers
from hyvideo_rt.bench.stress_soak import LIMIT_BYTES, MIB, Sample, judge

MADE, CUT, LOST, GONE = (f"video_{letter * 32}" for letter in "abcd")
SHA = hashlib.sha256(b"a film").hexdigest()


def record(job_id: str, status: str = "completed", code: str | None = None, **more: Any) -> dict[str, Any]:
    sound = {"id": job_id, "status": status, "error": {"code": code} if code else None, "attempts": 1}
    sound |= {"sha256": SHA if status == "completed" else None, "size_bytes": 6, "num_frames": 17}
    return {**sound, "seed": 1, "steps": 2, **more}


class Facts:
    """All is well: one job of each kind of end."""

    def __init__(self) -> None:
        self.tales = {job_id: Tale(job_id, {}, [job_id]) for job_id in (MADE, CUT, LOST, GONE)}
        self.tales[MADE].endings.append(Ending("completed", None, SHA))
        self.tales[CUT].cancel_asked = self.tales[GONE].deleted = True
        self.records = {
            MADE: record(MADE),
            CUT: record(CUT, "failed", "cancelled"),
            LOST: record(LOST, "failed", "worker_lost", attempts=2),
        }
        self.contents = {MADE: Content(6, SHA, 17)}
        self.endings = {MADE: 1, CUT: 1, GONE: 1}
        self.left = Leftovers([f"{MADE}.mp4", f"{MADE}.thumbnail.webp"], [], "ok")

    def broken(self) -> dict[str, list[str]]:
        tales = list(self.tales.values())
        return broken_promises(tales, self.records, self.contents, self.endings, self.left)

    def leave(self, **what: Any) -> None:
        self.left = dataclasses.replace(self.left, **what)


def test_promises_that_are_kept() -> None:
    assert Facts().broken() == {}


BREAKS: dict[str, tuple[Callable[[Facts], object], str]] = {
    "lost a job": (lambda f: f.records.pop(MADE), "accepted and gone"),
    "answered 404": (lambda f: setattr(f.tales[MADE], "vanished", True), "accepted and gone"),
    "kept a deleted one": (lambda f: f.records.update({GONE: record(GONE)}), "deleted and there"),
    "showed a deleted one": (lambda f: setattr(f.tales[GONE], "lingered", True), "deleted and there"),
    "ignored a cancel": (lambda f: setattr(f.tales[CUT], "went_on", True), "cancelled and went on"),
    "never ended one": (lambda f: f.records.update({MADE: record(MADE, "in_progress")}), "never ended"),
    "changed an end": (
        lambda f: f.tales[CUT].endings.append(Ending("completed", None, SHA)),
        "its end changed",
    ),
    "ended one twice": (lambda f: f.endings.update({MADE: 2}), "ended more than once"),
    "cancelled by itself": (
        lambda f: setattr(f.tales[CUT], "cancel_asked", False),
        "failed for no reason",
    ),
    "gave up early": (lambda f: f.records[LOST].update(attempts=1), "failed for no reason"),
    "failed oddly": (
        lambda f: f.records.update({LOST: record(LOST, "failed", "internal_error", attempts=2)}),
        "failed for no reason",
    ),
    "made two of a key": (lambda f: f.tales[MADE].ids.append(CUT), "one key made two jobs"),
    "made one of its own": (lambda f: f.tales.pop(CUT), "nobody was told of it"),
    "cut a video off": (lambda f: f.contents.update({MADE: Content(5, SHA, 17)}), "its video is not whole"),
    "changed a video": (lambda f: f.contents.update({MADE: Content(6, "0", 17)}), "its video is not whole"),
    "lost frames": (lambda f: f.contents.update({MADE: Content(6, SHA, 16)}), "its video is not whole"),
    "lost a video": (lambda f: f.contents.clear(), "its video is not whole"),
    "left an orphan": (lambda f: f.leave(files=[f"{GONE}.mp4"]), "file without a completed job"),
    "left a cancelled one's file": (lambda f: f.leave(files=[f"{CUT}.mp4"]), "file without a completed job"),
    "left half a file": (lambda f: f.leave(partial=["x.mp4"]), "left in partial"),
    "broke its database": (lambda f: f.leave(integrity="malformed"), "integrity"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_broken_promise_is_noticed(case: str) -> None:
    facts = Facts()
    spoil, promise = BREAKS[case]
    spoil(facts)
    assert promise in facts.broken()


def test_two_videos_of_one_request_are_the_same() -> None:
    facts = Facts()
    other = hashlib.sha256(b"another").hexdigest()
    facts.tales[LOST].endings.clear()
    facts.records[LOST] = record(LOST, sha256=other)
    facts.contents[LOST] = Content(6, other, 17)
    assert facts.broken() == {"another video for the same request": [LOST]}
    facts.records[LOST]["seed"] = 2
    assert facts.broken() == {}


def test_the_log_says_what_went_wrong() -> None:
    log = Log()
    sound = {"level": "info", "message": "ended", "job": MADE, "state": "completed"}
    log.take(json.dumps(sound))
    assert (log.endings[MADE], log.completed, log.troubles) == (1, 1, [])
    log.take(
        json.dumps({"level": "error", "message": "it failed", "error": "Traceback\n  at\nValueError: x\n"})
    )
    log.take(json.dumps({"level": "info", "message": "Traceback (most recent call last):"}))
    log.take("Fatal Python error: Segmentation fault\n")
    assert log.troubles[0] == "it failed ValueError: x"
    assert len(log.troubles) == 3


@pytest.mark.parametrize(("status", "failures"), [(400, 0), (501, 0), (505, 0), (500, 1), (503, 1)])
def test_which_answers_are_failures(status: int, failures: int) -> None:
    answers = Answers()
    answers.take("lengths", b"GET /", b"HTTP/1.1 200 OK\r\n\r\n{}HTTP/1.1 %d X\r\n\r\n" % status)
    assert len(answers.failures) == failures
    assert answers.statuses[status] == 1


def series(level: Callable[[float], float], noise: float = 8 * MIB) -> list[Sample]:
    """An hour, sampled every 5 seconds; `level` from the share of it that is over to MiB."""
    rng = random.Random(0)
    levels = [300 * MIB + level(i / 720) * MIB + rng.gauss(0, noise) for i in range(720)]
    return [Sample(5.0 * i, int(bytes_), 15, 10) for i, bytes_ in enumerate(levels)]


@pytest.mark.parametrize(
    ("level", "grows"),
    [
        (lambda share: 0.0, False),
        (lambda share: 400 * min(share, 0.1), False),
        (lambda share: 40 * share, False),
        (lambda share: 80 * share, True),
        (lambda share: 300 * (share > 0.85), True),
        (lambda share: 300 * (0.4 < share < 0.6), False),
        (lambda share: -100 * share, False),
    ],
    ids=["flat", "warm-up", "slow", "growing", "late", "a peak", "shrinking"],
)
def test_the_judge_of_memory(level: Callable[[float], float], grows: bool) -> None:
    verdict = judge(series(level))
    assert verdict.grows is grows
    assert verdict.grew_bytes == verdict.late_bytes - verdict.early_bytes
    assert verdict.grows == (verdict.grew_bytes > LIMIT_BYTES)


def test_the_slope_is_per_hour() -> None:
    assert judge(series(lambda share: 80 * share)).slope_bytes_per_hour == pytest.approx(80 * MIB, rel=0.05)


def test_too_few_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="expected some in each tenth"):
        judge(series(lambda share: 0.0)[::200])


def test_a_violation_is_an_exit_status_and_other_parts_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {
        "kills": Part(lambda args: {"violations": {}}, steps=1),
        "cancels": Part(lambda args: {"violations": {"never ended": 1}}, steps=1),
    }
    monkeypatch.setattr(server_stress, "PARTS", parts)
    out = tmp_path / "stress.json"
    merge(out, "soak", {"violations": {}})
    for name, status in (("kills", 0), ("cancels", 1)):
        monkeypatch.setattr("sys.argv", ["server_stress", "--parts", name, "--out", str(out)])
        assert main() == status
    written = json.loads(out.read_text())
    assert list(written) == ["soak", "kills", "cancels"]
    assert written["cancels"]["conditions"]["weights"] == "tiny"
    assert [path.name for path in tmp_path.iterdir()] == ["stress.json"]
