"""The life of jobs in short chapters, each run on a service of its own that may be killed anywhere in it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kill_ledger import Client
from stubs import QUICK, request_for, wait_for, wait_warm

from hyvideo_rt.server.database import open_database
from hyvideo_rt.server.jobs import State, new_job_id
from hyvideo_rt.server.outputs import Outputs
from hyvideo_rt.server.previews import preview
from hyvideo_rt.server.settings import Limits
from hyvideo_rt.server.store import JobStore

LIMITS = replace(QUICK, watchdog_floor_s=10, heartbeat_s=10, lease_s=60, attempts=2)


@dataclass(frozen=True)
class Chapter:
    """`prepare` fills the data folder as an earlier server left it; `live` is what clients do."""

    live: Callable[[Client], None]
    prepare: Callable[[Path], None] = lambda data: None
    limits: Limits = LIMITS
    warm: bool = False
    damaged: bool = False


def starting(client: Client) -> None:
    wait_warm(client.service)


def creating(client: Client) -> None:
    wait_warm(client.service)
    plain, named = client.create("plain"), client.create("named", key="a")
    assert client.create("named", key="a") == named
    for job_id in (plain, named, client.create("named otherwise", key="b")):
        client.wait_end(job_id)


def making(client: Client) -> None:
    """With a lease so short that it is renewed, and a picture of the video."""
    wait_warm(client.service)
    job_id = client.create("steps 3 0.12", key="a")
    job = client.wait_end(job_id)
    if job.state is State.COMPLETED:
        preview(client.service.outputs, job_id, "thumbnail", job.bucket.num_frames)


def failing(client: Client) -> None:
    wait_warm(client.service)
    for prompt in ("fail internal_error once", "fail internal_error", "fail numerical_error", "crash once"):
        client.wait_end(client.create(prompt))


def cancelling(client: Client) -> None:
    wait_warm(client.service)
    running, waiting = client.create("steps 200 0.02 once"), client.create("waiting")
    client.wait_step(running)
    client.cancel(waiting)
    client.cancel(running)
    wait_for(lambda: client.service.supervisors[0].job is None)


def cancelling_too_late(client: Client) -> None:
    """The worker finishes all the same; its file must go."""
    wait_warm(client.service)
    job_id = client.create("ignore cancel steps 3 0.03")
    client.wait_step(job_id)
    client.cancel(job_id)
    wait_for(lambda: client.service.supervisors[0].job is None)


def deleting(client: Client) -> None:
    wait_warm(client.service)
    done = client.create("done", key="a")
    job = client.wait_end(done)
    preview(client.service.outputs, done, "thumbnail", job.bucket.num_frames)
    running, waiting = client.create("steps 200 0.02 once"), client.create("waiting", key="b")
    client.wait_step(running)
    for job_id in (waiting, running, done):
        client.delete(job_id)
    wait_for(lambda: client.service.supervisors[0].job is None)


def sweeping(client: Client) -> None:
    wait_warm(client.service)
    done = client.create("done")
    client.wait_end(done)
    client.service.outputs.video(new_job_id()).write_bytes(b"nobody's")
    client.expire(done)


def draining(client: Client) -> None:
    wait_warm(client.service)
    running, _ = client.create("steps 10 0.02"), client.create("waiting")
    client.wait_step(running)
    client.service.drain()


def leaving(client: Client) -> None:
    wait_warm(client.service)
    running, _ = client.create("steps 200 0.02 once"), client.create("waiting")
    client.wait_step(running)
    client.service.leave()


def recovering(client: Client) -> None:
    """What `leave_a_mess` left goes on by itself."""
    wait_for(lambda: client.service.store.queue_load().count == 0)
    wait_for(lambda: client.service.supervisors[0].job is None)


def leave_a_mess(data: Path) -> None:
    """As servers killed at several moments: running once and twice, each with and without its file in place,
    each with half a file aside; one waiting, and a file of nobody.
    """
    store, outputs = JobStore(open_database(data)), Outputs(data / "videos")
    for prompt, attempts, published in (
        ("once", 1, False),
        ("once, published", 1, True),
        ("twice", 2, False),
        ("twice, published", 2, True),
    ):
        job_id = _running(store, prompt, attempts)
        outputs.new_partial(job_id).write_bytes(b"half")
        if published:
            outputs.video(job_id).write_bytes(b"of an attempt that was not completed")
    outputs.video(new_job_id()).write_bytes(b"nobody's")
    store.create(request_for("waiting"), 1.0, 1e9, lambda load: None, None)
    store.close()


def _running(store: JobStore, prompt: str, attempts: int) -> str:
    job, _ = store.create(request_for(prompt), 1.0, 1e9, lambda load: None, None)
    while True:
        claimed = store.claim(lambda queued: next(x for x in queued if x.id == job.id), 1e9, 2e9)
        assert claimed
        if claimed.attempts == attempts:
            return job.id
        store.requeue(claimed, refund=False)


def damage(data: Path) -> None:
    """A database with holes, its log beside it, and a finished video."""
    store, outputs = JobStore(open_database(data)), Outputs(data / "videos")
    for number in range(100):
        store.create(request_for(f"{number} " * 50), 1.0, 1e9, lambda load: None, None)
    outputs.video(new_job_id()).write_bytes(KEPT)
    store.close()
    LEFT_OPEN.append(JobStore(open_database(data)))  # as a killed server's: its log is there
    LEFT_OPEN[0].create(request_for("in the log"), 1.0, 1e9, lambda load: None, None)
    file = data / "jobs.sqlite3"
    content = bytearray(file.read_bytes())
    content[8192:-4096] = b"\xff" * (len(content) - 8192 - 4096)
    file.write_bytes(content)


def set_aside(client: Client) -> None:
    wait_warm(client.service)
    client.wait_end(client.create("the first of a new database"))


LEFT_OPEN: list[JobStore] = []
KEPT = b"a video from before the damage"
CHAPTERS = {
    "starting": Chapter(starting, warm=True),
    "creating": Chapter(creating),
    "making": Chapter(making, limits=replace(LIMITS, lease_s=0.3)),
    "failing": Chapter(failing),
    "cancelling": Chapter(cancelling),
    "cancelling too late": Chapter(cancelling_too_late),
    "deleting": Chapter(deleting),
    "sweeping": Chapter(sweeping),
    "draining": Chapter(draining),
    "leaving": Chapter(leaving),
    "recovering": Chapter(recovering, prepare=leave_a_mess),
    "setting a damaged database aside": Chapter(set_aside, prepare=damage, damaged=True),
}
