"""Defects that the kill points have to find: each is put into a server and met by the kill that shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kill_switch import Point

from hyvideo_rt.server.desk import Desk
from hyvideo_rt.server.jobs import Job, Output, State
from hyvideo_rt.server.protocol import Done
from hyvideo_rt.server.store import IdempotencyKey, JobStore


@dataclass(frozen=True)
class Defect:
    """`shown` is part of what the checks have to say after a kill at `point` of the chapter."""

    put_in: Callable[[], None]
    chapter: str
    point: Point
    shown: str


def complete_before_the_file_is_there() -> None:
    def publish(self: Desk, job: Job, partial: Path, done: Done) -> Callable[[], None]:
        output = self.outputs.publish(partial, partial, done.seconds)
        self.store.complete(job, output, self.clock())
        self.outputs.publish(partial, self.outputs.video(job.id), done.seconds)
        self.leave(job)
        return lambda: None

    Desk.publish = publish  # type: ignore[method-assign]


def complete_what_is_no_longer_held() -> None:
    def complete(self: JobStore, job: Job, output: Output, now: float) -> bool:
        statement = "UPDATE jobs SET state = ?, finished_at = ?, size_bytes = ?, sha256 = ?, seconds = '{}'"
        values = (State.COMPLETED, now, output.size_bytes, output.sha256, job.id)
        return self._change(f"{statement} WHERE id = ?", values)

    JobStore.complete = complete  # type: ignore[method-assign]
    Desk._will_hold = lambda self, job: True  # type: ignore[method-assign]


def forget_recovery() -> None:
    def recover(self: Desk, *, started: bool) -> None:
        pass

    Desk.recover = recover  # type: ignore[method-assign]


def forget_the_sweep() -> None:
    Desk.sweep = lambda self: None  # type: ignore[method-assign]


def try_for_ever() -> None:
    bounded = JobStore.recover

    def recover(self: JobStore, max_attempts: int, now: float, *, started: bool) -> list[Job]:
        return bounded(self, 99, now, started=started)

    JobStore.recover = recover  # type: ignore[method-assign]


def write_the_key_in_another_transaction() -> None:
    create_both = JobStore.create

    def create(
        self: JobStore,
        request: Any,
        estimate_s: float,
        now: float,
        admit: Any,
        key: IdempotencyKey | None,
        lease_until: float | None = None,
        hand: Callable[[Job], None] = lambda job: None,
    ) -> tuple[Job, bool]:
        if key and (known := self.find_key(key)):
            return known, False
        job, new = create_both(self, request, estimate_s, now, admit, None, lease_until, hand)
        if key:
            with self._db.writing() as db:
                values = (key.key, key.fingerprint, job.id)
                db.execute("INSERT INTO idempotency_keys VALUES (?, ?, ?)", values)
        return job, new

    JobStore.create = create  # type: ignore[method-assign]


DEFECTS = {
    "completed before the file is there": Defect(
        complete_before_the_file_is_there,
        "making",
        Point("after", "store.complete COMMIT", 1),
        "completed without a file",
    ),
    "completed though it is no longer held": Defect(
        complete_what_is_no_longer_held,
        "cancelling too late",
        Point("after", "desk.publish COMMIT", 1),
        "2 ends",
    ),
    "recovery forgotten": Defect(
        forget_recovery, "making", Point("before", "store.complete COMMIT", 1), "0 ends"
    ),
    "sweep forgotten": Defect(
        forget_the_sweep,
        "deleting",
        Point("after", "store.delete COMMIT", 3),
        "a file of a video that is not there",
    ),
    "attempts without a bound": Defect(
        try_for_ever, "recovering", Point("after", "store.recover COMMIT", 1), "3 attempts"
    ),
    "key written in another transaction": Defect(
        write_the_key_in_another_transaction,
        "creating",
        Point("after", "store.create COMMIT", 2),
        "one key made 2 videos",
    ),
}
