"""Whether one more job may wait, and when to come back if not."""

import math
from dataclasses import dataclass

from hyvideo_rt.server.settings import Limits
from hyvideo_rt.server.store import QueueLoad


@dataclass(eq=False)  # not frozen: an exception is given its traceback
class QueueFull(Exception):
    """`retry_after_s` is when there should be room, if nobody else asks."""

    load: QueueLoad
    retry_after_s: int


def admit(load: QueueLoad, estimate_s: float, limits: Limits, running_s: float, devices: int) -> None:
    """Raises QueueFull. An empty queue takes any job: what never fits would otherwise wait forever.

    running_s: estimated device-seconds left of the jobs that run.
    """
    over_count = load.count + 1 - limits.queue_jobs
    over_s = load.seconds + estimate_s - limits.queue_s
    if load.count == 0 or (over_count <= 0 and over_s <= 0):
        return
    mean_s = load.seconds / load.count
    to_leave_s = max(over_count * mean_s, over_s)
    raise QueueFull(load, max(1, math.ceil((to_leave_s + running_s) / devices)))
