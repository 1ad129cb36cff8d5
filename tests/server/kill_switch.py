"""Kills this process exactly before or after one of its durable operations.

An operation is a statement that writes, a commit, a change of a folder, a message to or from a worker. It is
named after the public function of the server that does it, such as `outputs.publish replace`, and a point is
before or after its n-th time. Nothing in the server knows of this: `install` wraps what the server calls.
"""

import collections
import contextlib
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from hyvideo_rt.server import protocol
from hyvideo_rt.server.worker_process import WorkerProcess

WRITES = {"INSERT", "UPDATE", "DELETE"}
FOLDER_CALLS = ("mkdir", "rmdir", "rename", "replace", "unlink")


@dataclass(frozen=True)
class Point:
    """Written `before outputs.publish replace #1`."""

    when: str
    operation: str
    nth: int

    def __str__(self) -> str:
        return f"{self.when} {self.operation} #{self.nth}"


class Switch:
    """Counts operations of all threads; at the target the process is gone. seen: every point so far."""

    def __init__(self, target: Point | None) -> None:
        self._target, self._lock = target, threading.RLock()
        self._times: collections.Counter[str] = collections.Counter()
        self.seen: list[Point] = []

    @contextlib.contextmanager
    def around(self, operation: str, *, after: bool = True) -> Iterator[None]:
        """after=False: where the next point follows without another state between."""
        with self._lock:
            self._times[operation] += 1
            nth = self._times[operation]
        self._reach(Point("before", operation, nth))
        yield
        if after:
            self._reach(Point("after", operation, nth))

    def _reach(self, point: Point) -> None:
        with self._lock:
            self.seen.append(point)
            if point == self._target:
                os.kill(os.getpid(), signal.SIGKILL)


def install(switch: Switch) -> None:
    """For the rest of this process."""
    _watch_sqlite(switch)
    for name in FOLDER_CALLS:
        setattr(os, name, _watched_call(switch, name, getattr(os, name)))
    setattr(os, "fsync", _watched_call(switch, "fsync", os.fsync, after=False))  # noqa: B010
    _watch_worker(switch)


def _watch_sqlite(switch: Switch) -> None:
    class Connection(sqlite3.Connection):
        wrote = False

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            verb = sql.split(maxsplit=1)[0].upper()
            if verb in WRITES:
                self.wrote = True
                with switch.around(f"{place()} {verb}", after=False):
                    return super().execute(sql, *args)
            if (verb == "COMMIT" and self.wrote) or "journal_mode" in sql:
                self.wrote = False
                with switch.around(f"{place()} {verb}"):
                    return super().execute(sql, *args)
            return super().execute(sql, *args)

        def executescript(self, sql: str) -> sqlite3.Cursor:
            with switch.around(f"{place()} schema"):
                return super().executescript(sql)

        def close(self) -> None:
            with switch.around(f"{place()} close"):
                super().close()

    connect = sqlite3.connect

    def connect_watched(*args: Any, **options: Any) -> sqlite3.Connection:
        with switch.around(f"{place()} open"):
            return connect(*args, **options, factory=Connection)

    sqlite3.connect = connect_watched  # type: ignore[assignment]


def _watched_call(
    switch: Switch, name: str, call: Callable[..., Any], *, after: bool = True
) -> Callable[..., Any]:
    def watched(*args: Any, **options: Any) -> Any:
        where = place()
        nothing = name == "unlink" and not options and not os.path.lexists(args[0])
        if where is None or nothing:
            return call(*args, **options)
        with switch.around(f"{where} {name}", after=after):
            return call(*args, **options)

    return watched


def _watch_worker(switch: Switch) -> None:
    start, send, kill, decode = (
        WorkerProcess.__init__,
        WorkerProcess.send,
        WorkerProcess.kill,
        protocol.decode,
    )

    def watched_start(self: WorkerProcess, command: Any) -> None:
        with switch.around("worker_process start"):
            start(self, command)

    def watched_send(self: WorkerProcess, message: protocol.Message) -> None:
        with switch.around(f"worker_process send {type(message).__name__}"):
            send(self, message)

    def watched_kill(self: WorkerProcess) -> None:
        with switch.around("worker_process kill"):
            kill(self)

    def watched_decode(line: bytes) -> protocol.Message:
        message = decode(line)
        if not isinstance(message, protocol.Heartbeat):
            with switch.around(f"worker_process receive {type(message).__name__}", after=False):
                pass
        return message

    WorkerProcess.__init__ = watched_start  # type: ignore[method-assign]
    WorkerProcess.send = watched_send  # type: ignore[method-assign]
    WorkerProcess.kill = watched_kill  # type: ignore[method-assign]
    protocol.decode = watched_decode


def place() -> str | None:
    """The innermost public function of the server that runs in this thread; None: it is not the server's."""
    frame: FrameType | None = sys._getframe(1)
    while frame:
        module, name = str(frame.f_globals.get("__name__")), frame.f_code.co_name
        if module.startswith("hyvideo_rt.server.") and _is_public(name):
            return f"{module.rpartition('.')[2]}.{name}"
        frame = frame.f_back
    return None


def _is_public(name: str) -> bool:
    return name == "__init__" or (name[0] not in "_<" and name not in ("writing", "reading", "patiently"))
