"""Jobs in SQLite. Every change of state is a compare-and-set inside one transaction."""

import json
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hyvideo_rt.server.database import Database
from hyvideo_rt.server.jobs import Fault, Job, Output, State, VideoRequest, new_job_id

LOST = Fault("worker_lost", "the process that made this video ended each time; try again, or a smaller size")


class KeyReused(Exception):
    """An idempotency key came back with another request."""


@dataclass(frozen=True)
class IdempotencyKey:
    """What a client calls a request, and the fingerprint of its body."""

    key: str
    fingerprint: str


@dataclass(frozen=True)
class QueueLoad:
    """How many jobs wait, and the device-seconds they are estimated at."""

    count: int
    seconds: float


Admit = Callable[[QueueLoad], None]  # raises to refuse
Choose = Callable[[Sequence[Job]], Job | None]  # of the queued, oldest first


class JobStore:
    """Rows of jobs. Each claim is a new owner; only that one may renew, complete, fail or requeue."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @property
    def damaged(self) -> bool:
        return self._db.damaged

    def create(
        self,
        request: VideoRequest,
        estimate_s: float,
        now: float,
        admit: Admit,
        key: IdempotencyKey | None,
        lease_until: float | None = None,
        hand: Callable[[Job], None] = lambda job: None,
    ) -> tuple[Job, bool]:
        """The new job and True, or the one that this key has already made and False. Raises KeyReused.

        With a lease and nobody queued before it, it is running and ours at once: one commit instead of two.
        `hand` is given it before that commit, which takes the time of a disk and may fail.
        """
        with self._db.writing() as db:
            if key and (known := self._job_of_key(db, key)):
                return known, False
            load = _queue_load(db)
            admit(load)
            job = Job(0, new_job_id(), State.QUEUED, request, estimate_s, now)
            if lease_until is not None and load.count == 0:
                job = _claimed(job, now, lease_until)
            inserted = db.execute(
                "INSERT INTO jobs (id, request, estimate_s, created_at, state, attempts, started_at, owner, "
                "lease_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (job.id, json.dumps(request.to_json()), estimate_s, now, *_claim(job)),
            )
            if key:
                db.execute(
                    "INSERT INTO idempotency_keys VALUES (?, ?, ?)", (key.key, key.fingerprint, job.id)
                )
            assert inserted.lastrowid
            job = replace(job, seq=inserted.lastrowid)
            if job.state is State.RUNNING:
                hand(job)
            return job, True

    def find_key(self, key: IdempotencyKey) -> Job | None:
        """The job that this key has already made. Raises KeyReused."""
        with self._db.reading() as db:
            return self._job_of_key(db, key)

    def get(self, job_id: str) -> Job | None:
        with self._db.reading() as db:
            row = _row(db, job_id)
            return _job(row) if row else None

    def page(self, after: int | None, limit: int, *, newest_first: bool) -> list[Job]:
        """Up to `limit` jobs behind the one whose seq is `after`."""
        beyond, order = ("<", "DESC") if newest_first else (">", "ASC")
        query = f"SELECT * FROM jobs WHERE ? IS NULL OR seq {beyond} ? ORDER BY seq {order} LIMIT ?"
        with self._db.reading() as db:
            return [_job(row) for row in db.execute(query, (after, after, limit))]

    def in_state(self, state: State) -> list[Job]:
        """Oldest first."""
        with self._db.reading() as db:
            return _in_state(db, state)

    def queue_load(self) -> QueueLoad:
        with self._db.reading() as db:
            return _queue_load(db)

    def ahead_of(self, job: Job) -> QueueLoad:
        """What was asked for before a queued job and waits as it does."""
        with self._db.reading() as db:
            return _queue_load(db, before=job.seq)

    def claim(self, choose: Choose, now: float, lease_until: float) -> Job | None:
        """The job that `choose` picks of those queued, now running and ours; None if it picks none."""
        with self._db.writing() as db:
            job = choose(_in_state(db, State.QUEUED))
            if job is None:
                return None
            claimed = _claimed(job, now, lease_until)
            db.execute(
                "UPDATE jobs SET state = ?, attempts = ?, started_at = ?, owner = ?, lease_until = ? "
                "WHERE id = ?",
                (*_claim(claimed), job.id),
            )
            return claimed

    def renew(self, job: Job, lease_until: float) -> bool:
        """`job` as it was claimed. False: it is no longer its claimer's to run."""
        return self._change(
            "UPDATE jobs SET lease_until = ? WHERE id = ? AND state = ? AND owner = ?",
            (lease_until, *_held(job)),
        )

    def held_until(self, job: Job) -> float | None:
        """The lease of `job` as it was claimed. None: it is no longer its claimer's to run."""
        with self._db.reading() as db:
            row = db.execute(
                "SELECT lease_until FROM jobs WHERE id = ? AND state = ? AND owner = ?", _held(job)
            ).fetchone()
            return float(row[0]) if row else None

    def complete(self, job: Job, output: Output, now: float) -> bool:
        return self._change(
            "UPDATE jobs SET state = ?, finished_at = ?, size_bytes = ?, sha256 = ?, seconds = ?, "
            "owner = NULL, lease_until = NULL WHERE id = ? AND state = ? AND owner = ?",
            (
                State.COMPLETED,
                now,
                output.size_bytes,
                output.sha256,
                json.dumps(dict(output.seconds)),
                *_held(job),
            ),
        )

    def fail(self, job: Job, fault: Fault, now: float) -> bool:
        return self._change(
            "UPDATE jobs SET state = ?, finished_at = ?, error_code = ?, error_message = ?, "
            "owner = NULL, lease_until = NULL WHERE id = ? AND state = ? AND owner = ?",
            (State.FAILED, now, fault.code, fault.message, *_held(job)),
        )

    def requeue(self, job: Job, *, refund: bool) -> bool:
        """Back to its old place in the queue; with `refund` the attempt does not count."""
        return self._change(
            "UPDATE jobs SET state = ?, attempts = attempts - ?, started_at = NULL, "
            "owner = NULL, lease_until = NULL WHERE id = ? AND state = ? AND owner = ?",
            (State.QUEUED, int(refund), *_held(job)),
        )

    def cancel(self, job_id: str, now: float) -> Job | None:
        """Whoever runs it. None: it is final already, or not there."""
        with self._db.writing() as db:
            changed = db.execute(
                "UPDATE jobs SET state = ?, finished_at = ?, owner = NULL, lease_until = NULL "
                "WHERE id = ? AND state IN (?, ?)",
                (State.CANCELLED, now, job_id, State.QUEUED, State.RUNNING),
            )
            return _job(_row(db, job_id)) if changed.rowcount else None

    def delete(self, job_id: str) -> Job | None:
        """The job as it was; None if it is not there. Its idempotency key goes with it."""
        with self._db.writing() as db:
            row = _row(db, job_id)
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            return _job(row) if row else None

    def recover(self, max_attempts: int, now: float, *, started: bool) -> list[Job]:
        """Running jobs that nobody runs any more are queued again, or failed if they had their attempts.

        When the server has just `started`, alone on its folder, these are all; later, those whose lease ran
        out. Returns them as they were.
        """
        with self._db.writing() as db:
            lost = [job for job in _in_state(db, State.RUNNING) if started or (job.lease_until or 0) < now]
            for job in lost:
                queued = job.attempts < max_attempts
                db.execute(
                    "UPDATE jobs SET state = ?, finished_at = ?, error_code = ?, error_message = ?, "
                    "owner = NULL, lease_until = NULL WHERE id = ?",
                    (State.QUEUED, None, None, None, job.id)
                    if queued
                    else (State.FAILED, now, LOST.code, LOST.message, job.id),
                )
            return lost

    def finished_before(self, moment: float) -> list[Job]:
        with self._db.reading() as db:
            rows = db.execute("SELECT * FROM jobs WHERE finished_at < ? ORDER BY seq", (moment,))
            return [_job(row) for row in rows]

    def close(self) -> None:
        self._db.close()

    def _change(self, statement: str, values: tuple[object, ...]) -> bool:
        with self._db.writing() as db:
            return db.execute(statement, values).rowcount == 1

    def _job_of_key(self, db: sqlite3.Connection, key: IdempotencyKey) -> Job | None:
        found = db.execute("SELECT * FROM idempotency_keys WHERE key = ?", (key.key,)).fetchone()
        if found is None:
            return None
        if found["fingerprint"] != key.fingerprint:
            raise KeyReused(key.key)
        return _job(_row(db, found["job_id"]))


def _claimed(job: Job, now: float, lease_until: float) -> Job:
    """One attempt more, by a new owner."""
    return replace(
        job,
        state=State.RUNNING,
        attempts=job.attempts + 1,
        started_at=now,
        owner=secrets.token_hex(8),
        lease_until=lease_until,
    )


def _claim(job: Job) -> tuple[State, int, float | None, str | None, float | None]:
    """What a claim changes of its row."""
    return job.state, job.attempts, job.started_at, job.owner, job.lease_until


def _held(job: Job) -> tuple[str, State, str | None]:
    """What has to be true of its row for the claimer of a job to change it."""
    return job.id, State.RUNNING, job.owner


def _row(db: sqlite3.Connection, job_id: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return row


def _in_state(db: sqlite3.Connection, state: State) -> list[Job]:
    return [_job(row) for row in db.execute("SELECT * FROM jobs WHERE state = ? ORDER BY seq", (state,))]


def _queue_load(db: sqlite3.Connection, before: int | None = None) -> QueueLoad:
    query = "SELECT count(*), total(estimate_s) FROM jobs WHERE state = ? AND (? IS NULL OR seq < ?)"
    return QueueLoad(*db.execute(query, (State.QUEUED, before, before)).fetchone())


def _job(row: sqlite3.Row | None) -> Job:
    assert row is not None, "read in the transaction that wrote it"
    return Job(
        seq=row["seq"],
        id=row["id"],
        state=State(row["state"]),
        request=VideoRequest.from_json(json.loads(row["request"])),
        estimate_s=row["estimate_s"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        attempts=row["attempts"],
        owner=row["owner"],
        lease_until=row["lease_until"],
        fault=Fault(row["error_code"], row["error_message"]) if row["error_code"] else None,
        output=Output(row["size_bytes"], row["sha256"], json.loads(row["seconds"]))
        if row["sha256"]
        else None,
    )
