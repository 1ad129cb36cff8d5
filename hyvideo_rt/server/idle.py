"""A device without a job, so that whoever brings one can hand it over."""

import threading
from collections.abc import Callable, Collection

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.server.jobs import Job


class Waiter:
    """`loaded` are the sizes whose engines it has; `stop` ends the making of what it is handed."""

    def __init__(self, loaded: Collection[Bucket], stop: Callable[[str], None]) -> None:
        self.loaded, self.stop = loaded, stop
        self.job: Job | None = None
        self._woken = threading.Event()

    def wait(self, seconds: float) -> None:
        """Until it was woken, for so long at most."""
        self._woken.wait(seconds)

    def wake(self, job: Job | None = None) -> None:
        """To make this job, or to look what there is to do."""
        self.job = job
        self._woken.set()
