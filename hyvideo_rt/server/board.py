"""Where every running job is at this moment, in memory, and who wants to hear when that changes."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """A stage (load, encode, denoise, decode, write) and how many of its steps or tiles are done."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class News:
    """changed: any job's state may have. anything: that, or the position of the listener's own job has.

    The listener clears them before it looks. News do not queue up.
    """

    changed: asyncio.Event
    anything: asyncio.Event


@dataclass(frozen=True)
class _Listener:
    job_id: str | None
    loop: asyncio.AbstractEventLoop
    news: News


class Board:
    """Written by supervisors' threads, read from anywhere; listeners wait on their event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._positions: dict[str, Position] = {}
        self._listeners: set[_Listener] = set()

    def move(self, job_id: str, position: Position) -> None:
        with self._lock:
            self._positions[job_id] = position
            concerned = [listener for listener in self._listeners if listener.job_id == job_id]
        for listener in concerned:
            _set(listener.loop, listener.news.anything)

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
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            _set(listener.loop, listener.news.changed, listener.news.anything)

    @contextlib.contextmanager
    def listening(self, job_id: str | None = None) -> Iterator[News]:
        """Of all states, and of where this job is."""
        listener = _Listener(job_id, asyncio.get_running_loop(), News(asyncio.Event(), asyncio.Event()))
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener.news
        finally:
            with self._lock:
                self._listeners.discard(listener)


def _set(loop: asyncio.AbstractEventLoop, *events: asyncio.Event) -> None:
    """What is set is left alone: its listener has yet to look and will see this, too.

    Each wake takes time from the cores that make the video.
    """
    unset = [event for event in events if not event.is_set()]
    if unset:
        with contextlib.suppress(RuntimeError):  # it has ended
            loop.call_soon_threadsafe(_set_all, unset)


def _set_all(events: list[asyncio.Event]) -> None:
    for event in events:
        event.set()
