"""A device without a job, so that whoever brings one can hand it over."""

import threading
from collections.abc import Callable, Collection

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.server.jobs import Job


class Waiter:
    """`loaded` are the sizes whose engines it has; `begin` orders the making of what it is handed, `stop` the
    end of that. Neither raises.
    """

    def __init__(
        self, loaded: Collection[Bucket], begin: Callable[[Job], None], stop: Callable[[str], None]
    ) -> None:
        self.loaded, self.begin, self.stop = loaded, begin, stop
        self.job: Job | None = None
        self._woken = threading.Event()

    def wait(self, seconds: float) -> None:
        """Until it was woken, for so long at most."""
        self._woken.wait(seconds)

    def wake(self, job: Job | None = None) -> None:
        """To make this job, or to look what there is to do."""
        self.job = job
        self._woken.set()
