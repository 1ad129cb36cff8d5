"""The SQLite file behind the store: opened durable, checked, upgraded, or set aside if it is damaged."""

import contextlib
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hyvideo_rt.errors import HyVideoError

VERSION = 1
SCHEMA = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    request TEXT NOT NULL,
    estimate_s REAL NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    lease_until REAL,
    error_code TEXT,
    error_message TEXT,
    size_bytes INTEGER,
    sha256 TEXT,
    seconds TEXT
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, seq);
CREATE TABLE idempotency_keys (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX keys_by_job ON idempotency_keys (job_id);
"""
log = logging.getLogger(__name__)


@dataclass(eq=False)  # not frozen: an exception is given its traceback
class DatabaseFailed(HyVideoError):
    """SQLite could not do it and has changed nothing; code and message are for clients."""

    code: str
    message: str

    def __str__(self) -> str:
        return self.message


FULL = "disk_full", "there is no room for another video; the server's operator has to free some"
BUSY = "database_busy", "another process holds the job database; try again"
DAMAGED = "database_damaged", "the job database is damaged; the server's operator has to restart it"
ERROR = "database_error", "the job database cannot be read or written; the server's operator has to look"
FAILURES = {
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_BUSY: BUSY,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_IOERR: ERROR,
    sqlite3.SQLITE_READONLY: ERROR,
    sqlite3.SQLITE_CANTOPEN: ERROR,
}
RETRY_S = 0.5


class Database:
    """One connection, one transaction at a time. WAL with synchronous=FULL: a commit survives a power cut.

    What SQLite refuses is raised as DatabaseFailed. `damaged` stays true until the next start, which looks at
    the whole file.
    """

    def __init__(self, path: Path) -> None:
        self._lock, self.damaged = threading.Lock(), False
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare(path)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, path: Path) -> None:
        path.chmod(0o600)  # prompts are in it
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        verdict = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        found = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif found != VERSION:
            raise HyVideoError(
                f"got a job database of version {found} in {path}; expected version {VERSION}\n"
                f"  start the server with another --data-dir, or the version that wrote it"
            )

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; whoever comes second sees what the first has written."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite itself has taken back what failed for want of room
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.DatabaseError as error:
                refusal = FAILURES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
                if refusal is None:  # a mistake of ours
                    raise
                log.error("the job database failed: %s", error)
                self.damaged = self.damaged or refusal == DAMAGED
                raise DatabaseFailed(*refusal) from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def patiently(change: Callable[[], bool], wait_s: float) -> bool:
    """Again and again while the database fails, for so long; then raises DatabaseFailed."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return change()
        except DatabaseFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)


def open_database(folder: Path) -> Database:
    """`jobs.sqlite3` in the folder. A damaged one moves aside with its videos, and a new one is begun.

    Raises HyVideoError for what a new file would not mend: locked, read-only, no room.
    """
    path = folder / "jobs.sqlite3"
    try:
        return Database(path)
    except (sqlite3.OperationalError, OSError) as error:
        raise HyVideoError(
            f"got {str(error)!r} for the job database {path}; expected one that this user may write, that no "
            f"other process holds, on a disk with room\n"
            f"  make it so, or start the server with another --data-dir"
        ) from error
    except sqlite3.DatabaseError as error:
        aside = _set_aside(folder)
        log.error(
            "the job database is damaged (%s): moved to %s with its videos, a new one begun", error, aside
        )
        return Database(path)


def _set_aside(folder: Path) -> Path:
    """The videos go first: as long as the damaged file is here, a start that was cut off is repeated. Once it
    is gone, a new database would know none of them, and they would be swept.
    """
    aside = folder / f"damaged-{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 10**9:09d}"
    aside.mkdir(mode=0o700)
    for name in ("videos", "jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm"):
        if (folder / name).exists():
            shutil.move(folder / name, aside / name)
    return aside
