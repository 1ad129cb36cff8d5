"""Where every running job is at this moment, in memory, and who wants to hear when that changes."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """A stage (load, encode, denoise, decode, write) and how many of its steps or tiles are done."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class _Listener:
    job_id: str | None
    loop: asyncio.AbstractEventLoop
    changed: asyncio.Event


class Board:
    """Written by supervisors' threads, read from anywhere; listeners wait on their event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._positions: dict[str, Position] = {}
        self._listeners: set[_Listener] = set()

    def move(self, job_id: str, position: Position) -> None:
        with self._lock:
            self._positions[job_id] = position
        self._notify(lambda listener: listener.job_id == job_id)

    def position(self, job_id: str) -> Position | None:
        with self._lock:
            return self._positions.get(job_id)

    def clear(self, job_id: str) -> None:
        """The job no longer runs. Everyone hears: places in the queue have changed."""
        with self._lock:
            self._positions.pop(job_id, None)
        self.wake()

    def wake(self) -> None:
        """Every listener looks again."""
        self._notify(lambda _: True)

    @contextlib.contextmanager
    def listening(self, job_id: str | None = None) -> Iterator[asyncio.Event]:
        """Set when any job's state may have changed, and when the position of this one has.

        The listener clears it. News do not queue up.
        """
        listener = _Listener(job_id, asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener.changed
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def _notify(self, concerns: Callable[[_Listener], bool]) -> None:
        with self._lock:
            concerned = [listener for listener in self._listeners if concerns(listener)]
        for listener in concerned:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                listener.loop.call_soon_threadsafe(listener.changed.set)
