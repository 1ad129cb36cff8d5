"""Which queued job a free device takes next: the oldest, unless a younger one costs it next to nothing."""

from collections.abc import Collection, Sequence

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.server.jobs import Job


def choose(queued: Sequence[Job], loaded: Collection[Bucket], now: float, overtake_s: float) -> Job | None:
    """First come, first served. One exception saves swaps of engines: where the oldest job's are not loaded,
    one whose are may go first, if it ends before the oldest has waited `overtake_s`.

    queued: oldest first. The bound holds for all that are overtaken: none has waited longer than the oldest.
    """
    if not queued:
        return None
    oldest = queued[0]
    if oldest.bucket in loaded:
        return oldest
    spare_s = overtake_s - (now - oldest.created_at)
    ready = (job for job in queued[1:] if job.bucket in loaded and job.estimate_s <= spare_s)
    return next(ready, oldest)
