"""What has to hold after a kill, once a new server has brought everything to its end."""

import hashlib
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
from kill_chapters import KEPT
from kill_ledger import Client, history, notes, rows
from stubs import wait_warm

from hyvideo_rt.server.jobs import NEXT, Job, State
from hyvideo_rt.server.service import Service

FINAL = {state for state in State if state.is_final}
SETTLE_S = 10


def bring_to_an_end(service: Service, ledger: Path) -> None:
    """A client asks once more for what it got no answer to; then all is made, and swept."""
    wait_warm(service)
    client = Client(service, ledger)
    for note in notes(ledger, "asked"):
        if note["key"]:
            client.create(note["asked"], note["key"])
    deadline, quiet_since = time.monotonic() + SETTLE_S, time.monotonic()
    while time.monotonic() < min(deadline, quiet_since + 1) and not _all_final(service):
        if service.store.queue_load().count or service.supervisors[0].job:
            quiet_since = time.monotonic()
        time.sleep(0.01)
    while service.supervisors[0].job and time.monotonic() < deadline:
        time.sleep(0.01)
    service.desk.sweep()


def _all_final(service: Service) -> bool:
    return all(job.state.is_final for job in _jobs(service))


def _jobs(service: Service) -> list[Job]:
    return service.store.page(None, 1000, newest_first=False)


def violations(service: Service, ledger: Path) -> Iterator[str]:
    """Of what was promised, in words; none is as it should be."""
    jobs = {job.id: job for job in _jobs(service)}
    yield from _of_states(jobs, service)
    yield from _of_promises(jobs, ledger)
    yield from _of_files(jobs, service)


def _of_states(jobs: dict[str, Job], service: Service) -> Iterator[str]:
    for job in jobs.values():
        if job.attempts > service.settings.limits.attempts:
            yield f"{job.attempts} attempts"
    for job_id, states in history(service.settings.data_dir / "jobs.sqlite3").items():
        ends = [state for state in states if state in FINAL]
        if len(ends) != 1:
            yield f"{len(ends)} ends: {' '.join(states)}"
        if states[0] not in (State.QUEUED, State.RUNNING) or not all(map(_may_follow, states, states[1:])):
            yield f"no way to go: {' '.join(states)}"
        if (job_id in jobs) == (states[-1] == "deleted"):
            yield "a row that was deleted, or none that was not"


def _may_follow(state: str, after: str) -> bool:
    return state != "deleted" and (after == "deleted" or after in NEXT[State(state)])


def _of_promises(jobs: dict[str, Job], ledger: Path) -> Iterator[str]:
    """Of what a client was told before the kill, and what it is told when it asks again."""
    leaving = {note["deleting"] for note in notes(ledger, "deleting")}
    for note in notes(ledger, "made"):
        if note["made"] not in jobs and note["made"] not in leaving:
            yield f"{note['prompt']!r} was answered and is not there"
    for note in notes(ledger, "deleted"):
        if note["deleted"] in jobs:
            yield "deleted and there again"
    for note in [*notes(ledger, "seen"), *({"seen": n["cancelled"]} for n in notes(ledger, "cancelled"))]:
        state, job = note.get("state", State.CANCELLED), jobs.get(note["seen"])
        if job and job.state != state:
            yield f"{state} became {job.state}"
    keyed = {note["asked"] for note in notes(ledger, "asked") if note["key"]}
    for prompt, count in Counter(job.request.prompt for job in jobs.values()).items():
        if prompt in keyed and count > 1:
            yield f"one key made {count} videos"


def _of_files(jobs: dict[str, Job], service: Service) -> Iterator[str]:
    outputs = service.outputs
    for job_id in outputs.owners():
        if job_id not in jobs or jobs[job_id].state is not State.COMPLETED:
            yield f"a file of a video that is {jobs[job_id].state if job_id in jobs else 'not there'}"
    if left := list((outputs.root / "partial").iterdir()):
        yield f"{len(left)} files in partial/"
    for job in jobs.values():
        if job.state is State.COMPLETED and (complaint := _complaint(job, outputs.video(job.id))):
            yield complaint


def _complaint(job: Job, path: Path) -> str | None:
    """About the file of a completed job."""
    if not path.exists() or job.output is None:
        return "completed without a file"
    content = path.read_bytes()
    if (len(content), hashlib.sha256(content).hexdigest()) != (job.output.size_bytes, job.output.sha256):
        return "another file than the row says"
    try:
        with av.open(str(path)) as container:
            frames = sum(1 for _ in container.decode(video=0))
    except av.FFmpegError as error:
        return f"completed and not playable: {error}"
    return None if frames == job.bucket.num_frames else f"{frames} frames of {job.bucket.num_frames}"


def of_the_database(data: Path) -> Iterator[str]:
    """After the last server has closed it."""
    try:
        ((verdict,),) = rows(data / "jobs.sqlite3", "PRAGMA integrity_check")
    except (sqlite3.DatabaseError, ValueError) as error:
        verdict = str(error)
    if verdict != "ok":
        yield f"integrity_check: {verdict}"


def of_the_damaged(data: Path) -> Iterator[str]:
    """What was set aside is all there: the damaged database and its video."""
    files = [path for path in data.rglob("*") if path.is_file()]
    if not any(path.read_bytes() == KEPT for path in files):
        yield "a video of a damaged database is lost"
    if not any(path.name == "jobs.sqlite3" and "damaged-" in str(path) for path in files):
        yield "a damaged database is lost"
