"""What kills, hangs or confuses a worker costs one attempt of one job; the server goes on."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stubs import SQUARE, ended, request_for, stub_service, stub_settings, traces, wait_for, wait_warm

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.server.desk import Desk
from hyvideo_rt.server.jobs import Job, State
from hyvideo_rt.server.outputs import Outputs
from hyvideo_rt.server.protocol import Done
from hyvideo_rt.server.service import Service
from hyvideo_rt.server.supervisor import Supervisor
from hyvideo_rt.server.worker_process import WorkerLost


def submit(service: Service, prompt: str) -> str:
    return service.submit(request_for(prompt), None)[0].id


@pytest.mark.parametrize(
    "trouble", ["crash", "fork crash", "garble", "hang", "freeze", "fail internal_error"]
)
def test_a_second_attempt_in_a_new_process_completes(tmp_path: Path, trouble: str) -> None:
    with stub_service(tmp_path) as service:
        wait_warm(service)
        job = ended(service, submit(service, f"{trouble} once"))
        assert (job.state, job.attempts) == (State.COMPLETED, 2)
        assert len(traces(tmp_path, "start")) == (1 if trouble.startswith("fail") else 2)
        assert len(traces(tmp_path, f"made-{job.id}")) == 1
        assert ended(service, submit(service, "a cat")).attempts == 1, "the next job has a good worker"


@pytest.mark.parametrize(
    ("trouble", "code"),
    [("crash", "worker_lost"), ("hang", "timeout"), ("fail device_error", "device_error")],
)
def test_attempts_are_bounded(tmp_path: Path, trouble: str, code: str) -> None:
    with stub_service(tmp_path) as service:
        wait_warm(service)
        job = ended(service, submit(service, trouble))
        assert job.fault
        assert (job.state, job.attempts, job.fault.code) == (State.FAILED, 2, code)
        assert not service.outputs.video(job.id).exists()
        assert ended(service, submit(service, "a cat")).state is State.COMPLETED


@pytest.mark.parametrize(
    "code", ["numerical_error", "disk_full", "invalid_request", "does_not_fit", "out_of_memory"]
)
def test_what_would_fail_the_same_way_is_not_tried_again(tmp_path: Path, code: str) -> None:
    with stub_service(tmp_path) as service:
        wait_warm(service)
        job = ended(service, submit(service, f"fail {code}"))
        assert job.fault
        assert (job.attempts, job.fault.code) == (1, code)


def test_workers_that_die_at_once_open_the_breaker(tmp_path: Path) -> None:
    with stub_service(tmp_path, "dies", breaker_deaths=3) as service:
        wait_for(lambda: service.troubles() == ["worker_broken"])
        assert 3 <= len(traces(tmp_path, "start")) <= 8, "with pauses, not in a tight loop"


def test_a_death_while_loading_is_fast_however_long_it_took(tmp_path: Path) -> None:
    """With real weights that is minutes: a worker that never gets warm must open the breaker all the same."""
    settings = stub_settings(tmp_path)
    with stub_service(tmp_path / "other") as service:
        hopeless = threading.Event()
        supervisor = Supervisor(settings.workers[0], settings, service.desk, hopeless.set)  # not started
        for deaths in (1, 2, 3):
            supervisor._mourn(WorkerLost("the warm-up failed"))
            assert supervisor.deaths == deaths
        assert supervisor.broken
        assert not hopeless.is_set()
        supervisor._warm_at = time.monotonic() - 2 * settings.limits.fast_death_s
        supervisor._mourn(WorkerLost("it had lived"))
        assert supervisor.deaths == 1
        supervisor.deaths = 5000  # a day of them
        assert supervisor._backoff_s() == settings.limits.max_backoff_s


def test_a_worker_that_can_never_load_is_not_tried_for_ever(tmp_path: Path) -> None:
    with stub_service(tmp_path, "cannot load") as service:
        wait_for(service.hopeless.is_set)
        assert "worker_not_ready" in service.troubles()


def test_jobs_of_two_workers_are_made_side_by_side_and_once_each(tmp_path: Path) -> None:
    settings = stub_settings(tmp_path)
    specs = tuple(replace(settings.workers[0], device=name) for name in ("cpu", "cpu:1"))
    service = Service(replace(settings, workers=specs))
    try:
        wait_for(lambda: all(supervisor.warm for supervisor in service.supervisors))
        together = [submit(service, "steps 200 0.01") for _ in range(2)]
        wait_for(lambda: all(supervisor.job for supervisor in service.supervisors))
        running = [supervisor.job for supervisor in service.supervisors]
        assert {job.id for job in running if job} == set(together)
        service.desk.cancel(together[0])
        more = [submit(service, "a cat") for _ in range(20)]
        jobs = [ended(service, job_id) for job_id in (*together, *more)]
        assert [job.state for job in jobs] == [State.CANCELLED, *[State.COMPLETED] * 21]
        assert len(traces(tmp_path, "made")) == 21
    finally:
        service.close()


def test_a_worker_that_dies_idle_is_replaced_before_anyone_asks(tmp_path: Path) -> None:
    with stub_service(tmp_path) as service:
        wait_warm(service)
        pid = service.supervisors[0].pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: service.supervisors[0].warm and service.supervisors[0].pid != pid)
        assert ended(service, submit(service, "a cat")).attempts == 1


def test_a_hung_worker_that_ignores_signals_is_gone_and_its_device_free(tmp_path: Path) -> None:
    with stub_service(tmp_path) as service:
        wait_warm(service)
        pid = service.supervisors[0].pid
        start = time.monotonic()
        ended(service, submit(service, "hang once"))
        assert time.monotonic() - start < 10
        with pytest.raises(ProcessLookupError):
            os.kill(pid or 0, 0)


def test_a_cancelled_job_stops_within_two_steps(tmp_path: Path) -> None:
    with stub_service(tmp_path, watchdog_floor_s=5) as service:
        wait_warm(service)
        job_id = submit(service, "steps 1000 0.02")
        wait_for(lambda: (p := service.desk.board.position(job_id)) and p.done > 3)
        assert service.desk.cancel(job_id)
        begun = time.monotonic()
        wait_for(lambda: service.supervisors[0].job is None)
        assert time.monotonic() - begun < 1, "not the 20 s that it would take"
        assert ended(service, job_id).state is State.CANCELLED
        assert traces(tmp_path, "made") == []
        assert len(traces(tmp_path, "start")) == 1, "the worker lives"


def test_a_worker_that_finishes_despite_a_cancel_publishes_nothing(tmp_path: Path) -> None:
    with stub_service(tmp_path, watchdog_floor_s=5) as service:
        wait_warm(service)
        job_id = submit(service, "ignore cancel steps 20 0.02")
        wait_for(lambda: service.desk.board.position(job_id))
        service.desk.cancel(job_id)
        wait_for(lambda: traces(tmp_path, "made") and service.supervisors[0].job is None)
        assert ended(service, job_id).state is State.CANCELLED
        assert list(service.outputs.owners()) == []
        assert list((service.outputs.root / "partial").iterdir()) == []


def test_deleting_at_any_moment_leaves_no_row_and_no_file(tmp_path: Path) -> None:
    with stub_service(tmp_path, watchdog_floor_s=5) as service:
        wait_warm(service)
        for i in range(20):
            job_id = submit(service, "steps 3 0.005")
            time.sleep(0.003 * i)
            assert service.desk.delete(job_id)
            assert service.store.get(job_id) is None
        wait_for(lambda: service.supervisors[0].job is None)
        assert ended(service, submit(service, "a cat")).state is State.COMPLETED
        assert len(list(service.outputs.owners())) == 1, "the last one's"


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EROFS, "output_error")],
)
def test_a_disk_that_takes_no_video_fails_the_job_that_met_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    """Not even half of it can be deleted, if it is read-only; the worker lives through that."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with stub_service(tmp_path) as service:
        wait_warm(service)
        with monkeypatch.context() as patch:
            patch.setattr(Outputs, "publish", refuse)
            if number == errno.EROFS:
                patch.setattr(Path, "unlink", refuse)
            job = ended(service, submit(service, "a cat"))
            wait_for(lambda: service.supervisors[0].job is None)
        assert job.fault
        assert job.fault.code == code
        assert ended(service, submit(service, "a cat")).state is State.COMPLETED
        assert len(traces(tmp_path, "start")) == 1


def test_drain_finishes_what_runs_and_keeps_what_waits(tmp_path: Path) -> None:
    with stub_service(tmp_path, watchdog_floor_s=5) as service:
        wait_warm(service)
        running, waiting = submit(service, "steps 10 0.05"), submit(service, "a cat")
        wait_for(lambda: service.supervisors[0].job)
        draining = threading.Thread(target=service.drain)
        draining.start()
        wait_for(lambda: "draining" in service.troubles())
        assert ended(service, running).state is State.COMPLETED
        draining.join()
    with stub_service(tmp_path) as service:
        assert ended(service, waiting).attempts == 1
        assert len(traces(tmp_path, f"made-{running}")) == 1


def test_drain_ends_in_time_and_gives_the_rest_back_uncounted(tmp_path: Path) -> None:
    with stub_service(tmp_path, drain_s=0.2, watchdog_floor_s=30) as service:
        wait_warm(service)
        job_id = submit(service, "steps 100 0.05 once")
        wait_for(lambda: service.desk.board.position(job_id))
        start = time.monotonic()
        service.drain()
        assert time.monotonic() - start < 3
    with stub_service(tmp_path) as service:
        job = ended(service, job_id)
        assert (job.state, job.attempts) == (State.COMPLETED, 1)


def test_the_warm_up_takes_the_way_of_every_request(tmp_path: Path) -> None:
    """It reaches the worker, and leaves neither a job nor a file."""
    settings = replace(stub_settings(tmp_path), warm=(Bucket(64, 64, 17), Bucket(64, 96, 17)))
    service = Service(settings)
    try:
        wait_warm(service)
        assert len(traces(tmp_path, "made")) == 2
        assert service.store.page(None, 10, newest_first=True) == []
        assert [path.name for path in service.outputs.root.rglob("*") if path.is_file()] == []
    finally:
        service.close()


@pytest.mark.parametrize("handed", [False, True])
def test_a_cancel_between_claim_and_start_reaches_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handed: bool
) -> None:
    """The row changes in the moment in which nobody can be told yet."""
    monkeypatch.setattr("hyvideo_rt.server.supervisor.TICK_S", 10.0)  # it waits all the time
    with stub_service(tmp_path, watchdog_floor_s=5) as service:
        wait_warm(service)
        store, claim, create = service.store, service.store.claim, service.store.create
        request = request_for("steps 1000 0.02")

        def claim_and_lose(*args: Any) -> Job | None:
            job = claim(*args)
            if job:
                assert store.cancel(job.id, time.time())
            return job

        def create_and_lose(*args: Any) -> tuple[Job, bool]:
            job, new = create(*args)
            assert job.state is State.RUNNING
            assert store.cancel(job.id, time.time())
            return job, new

        if handed:
            wait_for(lambda: service.desk._idle)
            monkeypatch.setattr(store, "create", create_and_lose)
            job_id = submit(service, request.prompt)
        else:
            monkeypatch.setattr(store, "claim", claim_and_lose)
            job_id = create(request, 1.0, time.time(), lambda load: None, None)[0].id
        wait_for(lambda: ended(service, job_id).state is State.CANCELLED)
        wait_for(lambda: service.supervisors[0].job is None, timeout_s=3)


def test_a_worker_that_died_while_it_was_idle_costs_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its supervisor finds that out when it is handed the next job."""
    monkeypatch.setattr("hyvideo_rt.server.supervisor.TICK_S", 10.0)  # not before
    with stub_service(tmp_path) as service:
        wait_warm(service)
        wait_for(lambda: service.desk._idle)
        assert service.supervisors[0]._worker
        service.supervisors[0]._worker.kill()
        job = ended(service, submit(service, "a cat"))
        assert (job.state, job.attempts) == (State.COMPLETED, 1)
        assert len(traces(tmp_path, "start")) == 2


def claiming(
    desk: Desk,
    found: list[Job | None],
    loaded: Collection[Bucket] = (),
    begin: Callable[[Job], None] = print,
) -> threading.Thread:
    """A device that waits for a job."""
    before = len(desk._idle)
    thread = threading.Thread(
        target=lambda: found.append(desk.claim(loaded, begin, print, wait_s=60)), daemon=True
    )
    thread.start()
    wait_for(lambda: len(desk._idle) > before)
    return thread


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Of a service whose own device has left."""
    with stub_service(tmp_path) as service:
        wait_warm(service)
        service.supervisors[0].drain()
        service.supervisors[0].join()
        yield service.desk


def test_each_idle_device_is_handed_a_job_at_once_first_the_one_with_the_engines(desk: Desk) -> None:
    found: list[Job | None] = []
    plain, with_engines = list[Job](), list[Job]()
    threads = [
        claiming(desk, found, begin=plain.append),
        claiming(desk, found, {SQUARE}, with_engines.append),
    ]
    for thread, begun in zip(reversed(threads), (with_engines, plain), strict=True):
        job, _ = desk.submit(request_for())
        assert job.state is State.RUNNING
        assert begun.pop() == job, "ordered by who has asked for it, not when the device's thread wakes"
        thread.join(10)
        assert found.pop() == job
    assert desk.submit(request_for())[0].state is State.QUEUED, "nobody waits for it"


def test_an_idle_device_takes_who_came_before(desk: Desk) -> None:
    """Queued again in the moment between two looks of the device."""
    found: list[Job | None] = []
    threads = [claiming(desk, found), claiming(desk, found)]
    first = desk.store.create(request_for(), 1.0, time.time(), lambda load: None, None)[0]
    jobs = [desk.submit(request_for())[0] for _ in threads]
    assert [job.state for job in jobs] == [State.QUEUED, State.QUEUED]
    for thread in threads:
        thread.join(10)
    assert found == [None, None], "both look again, at once"
    assert desk.claim(set(), print, print) == desk.store.get(first.id)


def test_a_wait_for_a_job_ends_with_its_time(desk: Desk) -> None:
    assert desk.claim(set(), print, print, wait_s=0.01) is None
    assert desk.submit(request_for())[0].state is State.QUEUED
    assert desk.claim(set(), print, print, wait_s=60)


def test_an_attempt_that_lost_its_lease_leaves_the_file_of_the_one_that_has_it(tmp_path: Path) -> None:
    """Two attempts of one job, the older one finishing last: what was published stays."""
    with stub_service(tmp_path) as service:
        desk, outputs = service.desk, service.outputs
        wait_warm(service)
        service.supervisors[0].drain()
        service.supervisors[0].join()
        job_id = submit_row(service)
        older = desk.claim(set(), print, print)
        assert older
        service.store.requeue(older, refund=False)
        newer = desk.claim(set(), print, print)
        assert newer
        for attempt, content in ((newer, b"newer"), (older, b"older")):
            partial = outputs.new_partial(job_id)
            partial.write_bytes(content)
            desk.publish(attempt, partial, Done(job_id, {"denoise": 1.0}, 0))
        assert outputs.video(job_id).read_bytes() == b"newer"
        assert ended(service, job_id).state is State.COMPLETED


@pytest.mark.parametrize("lost_by", ["a requeue", "its lease"])
def test_who_gave_a_job_back_does_not_touch_who_has_it_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost_by: str
) -> None:
    """Another device claims it in the moment in which the row is queued again."""
    with stub_service(tmp_path, "dies") as service:
        desk, store, change = service.desk, service.store, "requeue" if lost_by == "a requeue" else "recover"
        older_stops, newer_stops = list[str](), list[str]()
        job_id, undone = submit_row(service), getattr(service.store, change)
        older = desk.claim(set(), print, older_stops.append)
        assert older

        def change_and_claim(*args: Any, **options: Any) -> Any:
            answer = undone(*args, **options)
            assert desk.claim(set(), print, newer_stops.append)
            return answer

        monkeypatch.setattr(store, change, change_and_claim)
        if lost_by == "a requeue":
            desk.requeue(older, refund=False)
        else:
            desk.recover(started=True)
        assert newer_stops == [], "nobody has cancelled it"
        assert desk.cancel(job_id)
        assert newer_stops == [job_id]


def submit_row(service: Service) -> str:
    return service.store.create(request_for(), 1.0, time.time(), lambda load: None, None)[0].id
