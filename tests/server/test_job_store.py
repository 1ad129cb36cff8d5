"""States change by compare-and-set, in one place; nothing that was committed is lost or done twice."""

import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from stubs import request_for

from hyvideo_rt.errors import HyVideoError
from hyvideo_rt.server.database import Database, open_database
from hyvideo_rt.server.jobs import NEXT, Fault, Job, Output, State
from hyvideo_rt.server.store import IdempotencyKey, JobStore, KeyReused, QueueLoad

OUTPUT = Output(7, "ab" * 32, {"denoise": 1.5})
FAULT = Fault("numerical_error", "NaN")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(open_database(tmp_path))
    yield store
    store.close()


def anyone(load: QueueLoad) -> None:
    pass


def oldest(jobs: Sequence[Job]) -> Job | None:
    return jobs[0] if jobs else None


def create(store: JobStore, prompt: str = "a cat", key: IdempotencyKey | None = None) -> Job:
    return store.create(request_for(prompt), 2.0, 100.0, anyone, key)[0]


def claim(store: JobStore) -> Job:
    job = store.claim(oldest, now=101.0, lease_until=131.0)
    assert job
    return job


CHANGES: dict[str, tuple[Callable[[JobStore, Job], object], State]] = {
    "claim": (lambda store, job: store.claim(oldest, 101.0, 131.0), State.RUNNING),
    "complete": (lambda store, job: store.complete(job, OUTPUT, 110.0), State.COMPLETED),
    "fail": (lambda store, job: store.fail(job, FAULT, 110.0), State.FAILED),
    "requeue": (lambda store, job: store.requeue(job, refund=False), State.QUEUED),
    "cancel": (lambda store, job: store.cancel(job.id, 110.0), State.CANCELLED),
}


def job_in(store: JobStore, state: State) -> Job:
    """As its claimer knows it, where one does."""
    job = create(store)
    if state is State.QUEUED:
        return job
    if state is State.CANCELLED:
        store.cancel(job.id, 105.0)
        return job
    job = claim(store)
    if state is State.COMPLETED:
        store.complete(job, OUTPUT, 105.0)
    elif state is State.FAILED:
        store.fail(job, FAULT, 105.0)
    return job


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("state", State)
def test_every_change_from_every_state(store: JobStore, state: State, change: str) -> None:
    job = job_in(store, state)
    act, target = CHANGES[change]
    done = act(store, job)
    found = store.get(job.id)
    assert found
    allowed = target in NEXT[state]
    assert bool(done) is allowed
    assert found.state is (target if allowed else state)


def test_a_job_is_read_back_as_it_was_written(store: JobStore) -> None:
    job = create(store, "ein Kätzchen \x00 🐈")
    assert store.get(job.id) == job
    assert job.request == request_for("ein Kätzchen \x00 🐈")
    assert store.complete(claim(store), OUTPUT, 110.0)
    found = store.get(job.id)
    assert found
    assert (found.output, found.finished_at, found.owner, found.attempts) == (OUTPUT, 110.0, None, 1)


def test_only_the_latest_claimer_may_finish(store: JobStore) -> None:
    create(store)
    first = claim(store)
    assert [job.id for job in store.recover(2, now=132.0, started=False)] == [first.id]
    second = claim(store)
    assert second.attempts == 2
    assert not store.complete(first, OUTPUT, 133.0)
    assert not store.fail(first, FAULT, 133.0)
    assert not store.requeue(first, refund=True)
    assert not store.renew(first, 200.0)
    assert store.complete(second, OUTPUT, 134.0)


def test_a_lease_that_is_renewed_does_not_run_out(store: JobStore) -> None:
    create(store)
    job = claim(store)
    assert store.renew(job, 200.0)
    assert store.recover(2, now=150.0, started=False) == []
    assert store.recover(2, now=201.0, started=False)


def test_recovery_at_start_takes_all_back_and_bounds_attempts(store: JobStore) -> None:
    fresh, tired = create(store, "fresh"), create(store, "tired")
    for _ in range(2):
        job = store.claim(lambda jobs: next(j for j in jobs if j.id == tired.id), 101.0, 131.0)
        assert job
        if job.attempts == 1:
            store.requeue(job, refund=False)
    claim(store)
    store.recover(2, now=102.0, started=True)
    found = {name: store.get(job.id) for name, job in (("fresh", fresh), ("tired", tired))}
    assert found["fresh"] and found["fresh"].state is State.QUEUED  # noqa: PT018
    assert found["tired"] and found["tired"].fault and found["tired"].fault.code == "worker_lost"  # noqa: PT018


def test_a_refunded_attempt_does_not_count(store: JobStore) -> None:
    create(store)
    for _ in range(5):
        job = claim(store)
        assert job.attempts == 1
        assert store.requeue(job, refund=True)


def race(
    store: JobStore,
    job: Job,
    act: Callable[[JobStore, Job], object],
    start: threading.Barrier,
    won: list[bool],
) -> None:
    start.wait()
    won.append(bool(act(store, job)))


def test_exactly_one_of_many_wins(store: JobStore) -> None:
    """Completion, failure, cancellation and requeue at the same moment: one happens."""
    for _ in range(20):
        job = job_in(store, State.RUNNING)
        acts = [CHANGES[name][0] for name in ("complete", "fail", "requeue", "cancel", "complete", "fail")]
        won: list[bool] = []
        barrier = threading.Barrier(len(acts))

        threads = [threading.Thread(target=race, args=(store, job, act, barrier, won)) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = store.get(job.id)
        assert found
        # A requeued job can still be cancelled: then two have won, one after the other.
        assert sum(won) == 1 or (sum(won) == 2 and found.state is State.CANCELLED)
        store.delete(job.id)


def test_no_job_is_claimed_twice(store: JobStore) -> None:
    for _ in range(30):
        create(store)
    claimed: list[str] = []

    def take() -> None:
        while job := store.claim(oldest, 101.0, 131.0):
            claimed.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 30


def test_a_key_makes_one_job(store: JobStore) -> None:
    key = IdempotencyKey("k", "fingerprint")
    job, new = store.create(request_for(), 1.0, 100.0, anyone, key)
    again, new_again = store.create(request_for("other"), 1.0, 100.0, anyone, key)
    assert (new, new_again, again) == (True, False, job)
    with pytest.raises(KeyReused):
        store.create(request_for(), 1.0, 100.0, anyone, replace(key, fingerprint="another"))
    store.delete(job.id)
    assert store.create(request_for(), 1.0, 100.0, anyone, key)[1], "a deleted video frees its key"


def test_with_a_lease_it_is_running_at_once_unless_somebody_waits(store: JobStore) -> None:
    first, new = store.create(request_for(), 1.0, 100.0, anyone, IdempotencyKey("k", "f"), lease_until=130.0)
    assert new
    assert (first.state, first.attempts, first.started_at, first.lease_until) == (
        State.RUNNING,
        1,
        100.0,
        130.0,
    )
    assert store.get(first.id) == first
    assert store.queue_load() == QueueLoad(0, 0.0)
    waiting = create(store)
    behind, _ = store.create(request_for(), 1.0, 100.0, anyone, None, lease_until=130.0)
    assert store.get(behind.id) == behind
    assert (behind.state, behind.attempts, behind.owner) == (State.QUEUED, 0, None)
    assert claim(store).id == waiting.id
    assert store.complete(first, OUTPUT, 110.0)
    again, new = store.create(request_for(), 1.0, 100.0, anyone, IdempotencyKey("k", "f"), lease_until=130.0)
    assert (again.id, again.state, new) == (first.id, State.COMPLETED, False)


def test_a_refused_job_leaves_nothing(store: JobStore) -> None:
    def refuse(load: QueueLoad) -> None:
        assert load == QueueLoad(1, 2.0)
        raise RuntimeError

    create(store)
    with pytest.raises(RuntimeError):
        store.create(request_for(), 1.0, 100.0, refuse, IdempotencyKey("k", "f"))
    assert store.queue_load() == QueueLoad(1, 2.0)
    assert store.find_key(IdempotencyKey("k", "f")) is None


def test_pages_have_every_job_once(store: JobStore) -> None:
    made = [create(store).seq for _ in range(7)]
    for newest_first in (True, False):
        seen: list[int] = []
        page = store.page(None, 3, newest_first=newest_first)
        while page:
            seen += [job.seq for job in page]
            page = store.page(seen[-1], 3, newest_first=newest_first)
        assert seen == sorted(made, reverse=newest_first)


def test_what_was_committed_survives_a_process_that_just_stops(tmp_path: Path) -> None:
    """No close, no checkpoint: a second connection reads what the first one left in its log."""
    first = JobStore(open_database(tmp_path))
    job = create(first)
    running = claim(first)
    second = JobStore(open_database(tmp_path))
    assert second.get(job.id) == running
    pragmas = sqlite3.connect(tmp_path / "jobs.sqlite3").execute("PRAGMA journal_mode").fetchone()
    assert pragmas == ("wal",)
    with first._db.reading() as db:
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2, "FULL"


@pytest.mark.parametrize("damage", ["header", "pages", "truncated"])
def test_a_damaged_database_is_set_aside_with_its_videos(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = JobStore(open_database(tmp_path))
    for i in range(200):
        create(store, f"prompt {i} " * 20)
    store.close()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "kept.mp4").write_bytes(b"video")
    file = tmp_path / "jobs.sqlite3"
    content = bytearray(file.read_bytes())
    if damage == "header":
        content[:64] = b"x" * 64
    elif damage == "pages":
        content[8192:-4096] = b"\xff" * (len(content) - 8192 - 4096)
    else:
        del content[len(content) // 2 + 100 :]
    file.write_bytes(content)
    again = JobStore(open_database(tmp_path))
    assert again.page(None, 10, newest_first=True) == []
    assert create(again).state is State.QUEUED
    (aside,) = tmp_path.glob("damaged-*")
    assert (aside / "jobs.sqlite3").read_bytes() == content
    assert (aside / "videos" / "kept.mp4").exists()
    assert "damaged" in caplog.text


@pytest.mark.parametrize("moves", [0, 1])
def test_setting_aside_may_be_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int) -> None:
    """By a kill after so many moves: the next start loses no video and begins a database that works."""

    def move(source: Path, target: Path) -> None:
        if len(moved) == moves:
            raise KeyboardInterrupt
        moved.append(source.name)
        source.rename(target)

    moved: list[str] = []
    (tmp_path / "jobs.sqlite3").write_bytes(b"not a database" * 500)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "kept.mp4").write_bytes(b"video")
    with monkeypatch.context() as patch:
        patch.setattr("hyvideo_rt.server.database.shutil.move", move)
        with pytest.raises(KeyboardInterrupt):
            open_database(tmp_path)
    store = JobStore(open_database(tmp_path))
    assert create(store).state is State.QUEUED
    assert [path.parent.parent.name[:8] for path in tmp_path.rglob("kept.mp4")] == ["damaged-"]
    assert not (tmp_path / "videos").exists(), "where a new server would take it for nobody's"


def test_a_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    Database(tmp_path / "jobs.sqlite3").close()
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(HyVideoError, match="version 99"):
        open_database(tmp_path)
    assert not list(tmp_path.glob("damaged-*"))


class JobMachine(RuleBasedStateMachine):
    """Any sequence of calls, beside a model of dictionaries: the same answers, the same states."""

    jobs = Bundle("jobs")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = JobStore(Database(Path(self.folder.name) / "jobs.sqlite3"))
        self.states: dict[str, State] = {}
        self.holders: dict[str, str | None] = {}

    @rule(target=jobs)
    def create(self) -> str:
        job = create(self.store)
        self.states[job.id] = State.QUEUED
        return job.id

    @rule(target=claims)
    def create_for_an_idle_device(self) -> Job | None:
        job, _ = self.store.create(request_for(), 2.0, 100.0, anyone, None, lease_until=130.0)
        self.states[job.id] = State.RUNNING if State.QUEUED not in self.states.values() else State.QUEUED
        self.holders[job.id] = job.owner
        assert job.state is self.states[job.id]
        return job if job.state is State.RUNNING else None

    @rule(target=claims)
    def claim(self) -> Job | None:
        job = self.store.claim(oldest, 101.0, 131.0)
        queued = [job_id for job_id, state in self.states.items() if state is State.QUEUED]
        assert (job is None) == (not queued)
        if job:
            assert job.id == queued[0]
            self.states[job.id], self.holders[job.id] = State.RUNNING, job.owner
        return job

    @rule(job=claims, change=st.sampled_from(["complete", "fail", "requeue"]))
    def finish(self, job: Job | None, change: str) -> None:
        if job is None:
            return
        act, target = CHANGES[change]
        held = self.states.get(job.id) is State.RUNNING and self.holders[job.id] == job.owner
        assert bool(act(self.store, job)) is held
        if held:
            self.states[job.id] = target

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        possible = self.states.get(job_id) in (State.QUEUED, State.RUNNING)
        assert (self.store.cancel(job_id, 110.0) is not None) is possible
        if possible:
            self.states[job_id] = State.CANCELLED

    @rule(job_id=consumes(jobs))
    def delete(self, job_id: str) -> None:
        assert (self.store.delete(job_id) is not None) is (self.states.pop(job_id, None) is not None)

    @rule()
    def restart(self) -> None:
        lost = self.store.recover(99, 120.0, started=True)
        assert {job.id for job in lost} == {k for k, v in self.states.items() if v is State.RUNNING}
        for job in lost:
            self.states[job.id] = State.QUEUED

    @invariant()
    def same_states(self) -> None:
        rows = self.store.page(None, 1000, newest_first=False)
        assert [(job.id, job.state) for job in rows] == list(self.states.items())

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
