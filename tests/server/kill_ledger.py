"""What a client of a server that may be killed asked for, was told and saw, on disk before and after each.

`LEDGER` has a JSON object a line, of one of these: {"asked": prompt, "key"}, {"made": id, "prompt", "key"},
{"deleting": id}, {"deleted": id}, {"cancelled": id}, {"seen": id, "state"}.
The database itself keeps `history`: triggers note every change of a job's state in its own transaction.
"""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stubs import ended, request_for, wait_for

from hyvideo_rt.server.database import Database
from hyvideo_rt.server.jobs import Job
from hyvideo_rt.server.service import Service
from hyvideo_rt.server.store import IdempotencyKey

HISTORY = """
CREATE TABLE IF NOT EXISTS history (n INTEGER PRIMARY KEY, id TEXT, state TEXT);
CREATE TRIGGER IF NOT EXISTS made AFTER INSERT ON jobs BEGIN
    INSERT INTO history (id, state) VALUES (NEW.id, NEW.state); END;
CREATE TRIGGER IF NOT EXISTS moved AFTER UPDATE OF state ON jobs BEGIN
    INSERT INTO history (id, state) VALUES (NEW.id, NEW.state); END;
CREATE TRIGGER IF NOT EXISTS gone AFTER DELETE ON jobs BEGIN
    INSERT INTO history (id, state) VALUES (OLD.id, 'deleted'); END;
"""


class Client:
    """Asks a service as HTTP's routes do."""

    def __init__(self, service: Service, path: Path) -> None:
        self.service, self._path = service, path

    def create(self, prompt: str, key: str | None = None) -> str:
        self._note(asked=prompt, key=key)
        job, _ = self.service.submit(request_for(prompt), IdempotencyKey(key, prompt) if key else None)
        self._note(made=job.id, prompt=prompt, key=key)
        return job.id

    def wait_step(self, job_id: str) -> None:
        """Until it is being made, or was: by a second attempt, if a worker was killed."""

        def made() -> bool:
            job = self.service.store.get(job_id)
            return job is None or job.state.is_final or self.service.desk.board.position(job_id) is not None

        wait_for(made)

    def wait_end(self, job_id: str) -> Job:
        job = ended(self.service, job_id)
        self._note(seen=job_id, state=job.state)
        return job

    def cancel(self, job_id: str) -> None:
        if self.service.desk.cancel(job_id):
            self._note(cancelled=job_id)

    def delete(self, job_id: str) -> None:
        self._note(deleting=job_id)
        if self.service.desk.delete(job_id):
            self._note(deleted=job_id)

    def expire(self, job_id: str) -> None:
        """Let its time be over, and sweep."""
        self._note(deleting=job_id)
        desk, now = self.service.desk, self.service.desk.clock()
        desk.clock = lambda: now + desk.limits.retention_s + 1
        desk.sweep()
        self._note(deleted=job_id)

    def _note(self, **what: str | None) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(what) + "\n")


def notes(path: Path, kind: str) -> list[dict[str, Any]]:
    """Those of one kind, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [note for line in lines if kind in (note := json.loads(line))]


def keep_history() -> None:
    """In every database that this process opens."""
    prepare = Database._prepare

    def prepare_with_history(self: Database, path: Path) -> None:
        prepare(self, path)
        sqlite3.Connection.executescript(self._connection, HISTORY)

    Database._prepare = prepare_with_history  # type: ignore[method-assign]


def history(database: Path) -> dict[str, list[str]]:
    """The states of each job, in order; the last may be `deleted`."""
    found: dict[str, list[str]] = {}
    for job_id, state in rows(database, "SELECT id, state FROM history ORDER BY n"):
        found.setdefault(job_id, []).append(state)
    return found


def rows(database: Path, query: str) -> Iterator[tuple[Any, ...]]:
    connection = sqlite3.Connection(database)
    try:
        yield from connection.execute(query).fetchall()
    finally:
        sqlite3.Connection.close(connection)
