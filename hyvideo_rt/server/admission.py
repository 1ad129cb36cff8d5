"""Whether one more job may wait, and when to come back if not."""

import math
import time
from dataclasses import dataclass

from hyvideo_rt.server.settings import Limits
from hyvideo_rt.server.store import QueueLoad

REFUSAL_S = 0.05  # how long a refusal speaks for those that ask right after it


@dataclass(eq=False)  # not frozen: an exception is given its traceback
class QueueFull(Exception):
    """`retry_after_s` is when there should be room, if nobody else asks."""

    load: QueueLoad
    retry_after_s: int


@dataclass(eq=False)
class NoRoom(Exception):
    """So many estimated device-seconds have to leave the queue first."""

    load: QueueLoad
    to_leave_s: float

    def behind(self, running_s: float, devices: int) -> QueueFull:
        """running_s: estimated device-seconds left of the jobs that run."""
        return QueueFull(self.load, max(1, math.ceil((self.to_leave_s + running_s) / devices)))


def admit(load: QueueLoad, estimate_s: float, limits: Limits) -> None:
    """Raises NoRoom. An empty queue takes any job: what never fits would otherwise wait forever."""
    over_count = load.count + 1 - limits.queue_jobs
    over_s = load.seconds + estimate_s - limits.queue_s
    if load.count == 0 or (over_count <= 0 and over_s <= 0):
        return
    mean_s = load.seconds / load.count
    raise NoRoom(load, max(over_count * mean_s, over_s))


class Refusals:
    """The last refusal, said again to those that ask for as much, so that a crowd does not ask the database.

    One of them asks it all the same for each place that has become free, two for each that was accepted, and
    one every REFUSAL_S; all do when nobody was refused for twice as long. Used by several threads without a
    lock: a place that goes uncounted is found by the next who asks.
    """

    def __init__(self) -> None:
        self._full: QueueFull | None = None
        self._estimate_s, self._refused_at, self._until, self._places = 0.0, 0.0, 0.0, 0

    def met(self, full: QueueFull, estimate_s: float) -> None:
        self._full, self._estimate_s, self._places = full, estimate_s, 0
        self._refused_at = time.monotonic()
        self._until = self._refused_at + REFUSAL_S

    def freed(self) -> None:
        """A place in the queue."""
        self._places += 1

    def accepted(self) -> None:
        """Somebody, so there may be more room: twice as many may ask."""
        self._places += 2

    def of(self, estimate_s: float) -> QueueFull | None:
        """None: ask."""
        now = time.monotonic()
        if self._full is None or estimate_s < self._estimate_s or now >= self._refused_at + 2 * REFUSAL_S:
            return None
        if self._places > 0:
            self._places -= 1
            return None
        if now >= self._until:
            self._until = now + REFUSAL_S
            return None
        return self._full
