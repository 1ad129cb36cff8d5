"""How to stop each running job, told by whoever makes it, and since when it has been asked to stop."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from hyvideo_rt.server.jobs import Job


@dataclass
class _Stop:
    owner: str | None
    act: Callable[[str], None]
    asked_at: float | None = None


class Stops:
    """A job that is queued again may be claimed at once: each claim is an owner, and has its own entry."""

    def __init__(self) -> None:
        self._stops: dict[str, _Stop] = {}

    def add(self, job: Job, act: Callable[[str], None]) -> None:
        self._stops[job.id] = _Stop(job.owner, act)

    def stop(self, job_id: str, owner: str | None = None) -> None:
        """Whoever makes it, or only this owner."""
        stop = self._stops.get(job_id)
        if stop and owner in (None, stop.owner):
            stop.asked_at = stop.asked_at or time.monotonic()
            stop.act(job_id)

    def remove(self, job: Job) -> float | None:
        """This owner has left it: the seconds since it was asked to, if it was."""
        stop = self._stops.get(job.id)
        if stop is None or stop.owner != job.owner:
            return None
        del self._stops[job.id]
        return None if stop.asked_at is None else time.monotonic() - stop.asked_at
