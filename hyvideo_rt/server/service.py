"""The server without its HTTP: a desk, a supervisor per device, housekeeping; how it starts and ends."""

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from hyvideo_rt.errors import DoesNotFit, HyVideoError, InvalidRequest
from hyvideo_rt.server.admission import QueueFull
from hyvideo_rt.server.capabilities import Capabilities
from hyvideo_rt.server.costs import CostModel
from hyvideo_rt.server.database import DAMAGED, FULL, DatabaseFailed, open_database
from hyvideo_rt.server.desk import Desk
from hyvideo_rt.server.faults import ApiError, bad_request
from hyvideo_rt.server.jobs import Job, VideoRequest
from hyvideo_rt.server.metrics import Metrics
from hyvideo_rt.server.outputs import Outputs
from hyvideo_rt.server.settings import Settings
from hyvideo_rt.server.store import IdempotencyKey, JobStore, KeyReused
from hyvideo_rt.server.supervisor import Supervisor

log = logging.getLogger(__name__)


class Service:
    """Starts when it is made: what a dead server ran is queued again, workers load. Ends with `close`."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.metrics = settings, Metrics([spec.device for spec in settings.workers])
        self.store = JobStore(open_database(settings.data_dir))
        self.outputs = Outputs(settings.data_dir / "videos")
        on_cpu = all(spec.device == "cpu" for spec in settings.workers)
        costs = CostModel(settings.config, on_cpu=on_cpu)
        devices = len(settings.workers)
        self.desk = Desk(self.store, self.outputs, costs, self.metrics, settings.limits, devices)
        self.desk.recover(started=True)
        self.desk.sweep()
        self.draining, self.started_at = False, time.time()
        self._ended = threading.Event()
        self.hopeless = threading.Event()  # a worker has said that it can never load
        self.supervisors = [
            Supervisor(spec, settings, self.desk, self.hopeless.set) for spec in settings.workers
        ]
        self.metrics.watch_ready(lambda: not self.troubles())
        for thread in (*self.supervisors, threading.Thread(target=self._keep_house, daemon=True)):
            thread.start()

    @property
    def capabilities(self) -> Capabilities | None:
        """Of the first worker that has been ready; all have the same model."""
        return next((s.capabilities for s in self.supervisors if s.capabilities), None)

    def troubles(self) -> list[str]:
        """Why no request should be sent here now; empty if there is no reason."""
        found = []
        if self.draining:
            found.append("draining")
        if not any(s.warm for s in self.supervisors):
            broken = all(s.broken for s in self.supervisors)
            found.append("worker_broken" if broken else "worker_not_ready")
        if self.outputs.free_bytes() < self.settings.limits.min_free_bytes:
            found.append("disk_full")
        if self.store.damaged:
            found.append("database_damaged")
        return found

    def refuse_at_once(self, request: VideoRequest) -> None:
        """Raises ApiError if the queue was full a moment ago. Asks nothing that could take time."""
        if full := self.desk.full_for(request):
            raise self._queue_full(full)

    def submit(self, request: VideoRequest, key: IdempotencyKey | None) -> tuple[Job, bool]:
        """The job and whether it is new. Raises ApiError for what cannot be accepted, or not now."""
        try:
            if key and (known := self.store.find_key(key)):
                return known, False
            self._refuse_unless_able(request)
            return self.desk.submit(request, key)
        except KeyReused:
            raise ApiError(
                409,
                "this Idempotency-Key came with another request before; use a new one",
                "idempotency_key_reused",
            ) from None
        except QueueFull as full:
            raise self._queue_full(full) from None
        except (ApiError, DatabaseFailed) as error:
            self.metrics.refused.labels(error.code).inc()
            raise

    def _refuse_unless_able(self, request: VideoRequest) -> None:
        limits, capabilities = self.settings.limits, self.capabilities
        for trouble in self.troubles():
            if trouble != "worker_not_ready" or capabilities is None:  # one that is respawned will be back
                raise not_now(trouble)
        assert capabilities is not None
        try:
            capabilities.check(self.settings.config, request.params.bucket)
        except InvalidRequest as error:
            raise bad_request(str(error), "size", "size_not_built") from None
        except DoesNotFit as error:
            raise bad_request(str(error), "size", "does_not_fit") from None
        estimate_s = self.desk.costs.total(request.params)
        if estimate_s > limits.job_s:
            raise bad_request(
                f"this video would take about {estimate_s:.0f} s; expected at most {limits.job_s:.0f} s\n"
                f"  ask for a smaller size, fewer frames or fewer steps",
                "size",
                "too_expensive",
            )

    def _queue_full(self, full: QueueFull) -> ApiError:
        self.metrics.refused.labels("queue_full").inc()
        return ApiError(
            429,
            f"{full.load.count} videos wait, about {full.load.seconds:.0f} s of work; expected room by then",
            "queue_full",
            headers={"Retry-After": str(full.retry_after_s)},
        )

    def drain(self) -> None:
        """Nothing new; what runs may finish in time, the rest goes back to the queue. Then all ends."""
        self.draining = True
        log.info("draining")
        for supervisor in self.supervisors:
            supervisor.drain()
        deadline = time.monotonic() + self.settings.limits.drain_s
        while any(s.job for s in self.supervisors) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.leave()

    def leave(self) -> None:
        """Now: running jobs go back to the queue, workers end. Twice does no harm."""
        self.draining = True
        for supervisor in self.supervisors:
            supervisor.leave()
        for supervisor in self.supervisors:
            supervisor.join(timeout=10)
        self._ended.set()
        self.desk.board.wake()
        log.info("all workers have ended")

    def close(self) -> None:
        """After the last request was answered."""
        self.leave()
        self.store.close()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def _keep_house(self) -> None:
        """Leases that ran out, videos that outlived their time, files without a job."""
        while not self._ended.wait(self.settings.limits.sweep_every_s):
            try:
                self.desk.recover(started=False)
                self.desk.sweep()
            except Exception:
                log.exception("housekeeping failed; it is tried again")


@contextlib.contextmanager
def alone_on(settings: Settings) -> Iterator[None]:
    """Holds the data folder, made if it is not there. Raises HyVideoError if another server does."""
    descriptor = _lock_file(settings.data_dir)
    try:
        _lock(descriptor, settings)
        yield
    finally:
        os.close(descriptor)


def _lock_file(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise HyVideoError(
            f"got {error.strerror!r} for the data folder {folder}; expected one that this user may write\n"
            f"  make it writable, or name another with --data-dir"
        ) from error


def _lock(descriptor: int, settings: Settings) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HyVideoError(
            f"another server runs on {settings.data_dir}\n  stop it, or give this one its own --data-dir"
        ) from None


def not_now(trouble: str) -> ApiError:
    words = {
        "draining": "the server is shutting down and takes no new videos",
        "worker_broken": "the device's process keeps failing; the server's operator has to look",
        "worker_not_ready": "the model is still being loaded",
        **dict((FULL, DAMAGED)),
    }
    return ApiError(503, words[trouble], trouble, headers={"Retry-After": "30"})
