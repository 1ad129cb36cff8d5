"""What can happen to a job. The only place that changes one: row, file, events and metrics agree."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.server import schedule
from hyvideo_rt.server.admission import NoRoom, QueueFull, Refusals, admit
from hyvideo_rt.server.board import Board, Position
from hyvideo_rt.server.costs import CostModel, remaining
from hyvideo_rt.server.database import patiently
from hyvideo_rt.server.idle import Waiter
from hyvideo_rt.server.jobs import Fault, Job, State, VideoRequest
from hyvideo_rt.server.metrics import Metrics, label_of
from hyvideo_rt.server.outputs import Outputs
from hyvideo_rt.server.protocol import Done
from hyvideo_rt.server.settings import Limits
from hyvideo_rt.server.stops import Stops
from hyvideo_rt.server.store import Admit, IdempotencyKey, JobStore, QueueLoad

log = logging.getLogger(__name__)
# Another attempt may end otherwise. The rest would fail the same way: the same seed gives the same numbers.
WORTH_ANOTHER = {"worker_lost", "timeout", "device_error", "internal_error", "engine_error"}


@dataclass(frozen=True)
class View:
    """A job and where it is now. ahead: jobs queued before it; left_s: estimated until it is finished."""

    job: Job
    position: Position | None = None
    ahead: int | None = None
    left_s: float | None = None
    percent: int = 0


class Desk:
    """Safe to call from several threads."""

    def __init__(
        self,
        store: JobStore,
        outputs: Outputs,
        costs: CostModel,
        metrics: Metrics,
        limits: Limits,
        devices: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.outputs, self.costs, self.metrics = store, outputs, costs, metrics
        self.limits, self.devices, self.clock = limits, devices, clock
        self.board = Board()
        self._claims = threading.Lock()
        self._idle: list[Waiter] = []  # longest first
        self._stops = Stops()
        self._refusals = Refusals()
        metrics.watch_queue(lambda: store.queue_load().count, lambda: store.queue_load().seconds)

    # What clients ask for.

    def submit(self, request: VideoRequest, key: IdempotencyKey | None = None) -> tuple[Job, bool]:
        """The new job and True, or the one that this key has made before and False. It is queued, or running
        at once where a device waits for work.

        Raises QueueFull or KeyReused.
        """
        estimate_s = self.costs.total(request.params)

        def admitted(load: QueueLoad) -> None:
            admit(load, estimate_s, self.limits)

        try:
            with self._claims:
                job, new = self._create(request, estimate_s, admitted, key)
        except NoRoom as refusal:
            full = refusal.behind(self.running_s(), self.devices)
            self._refusals.met(full, estimate_s)
            raise full from None
        self._refusals.accepted()
        if new:
            log.info(
                "accepted", extra={"job": job.id, "size": str(job.bucket), "estimate_s": round(estimate_s, 3)}
            )
        return job, new

    def full_for(self, request: VideoRequest) -> QueueFull | None:
        """What `submit` has just said to as much work; None if it may say something else now."""
        return self._refusals.of(self.costs.total(request.params))

    def view(self, job: Job) -> View:
        if job.state is State.QUEUED:
            load = self.store.ahead_of(job)
            left_s = (load.seconds + self.running_s()) / self.devices + job.estimate_s
            return View(job, ahead=load.count, left_s=left_s)
        if job.state is State.RUNNING:
            position = self.board.position(job.id)
            stages = self.costs.stages(job.request.params)
            left_s = _left_s(stages, position)
            share = 1 - left_s / max(sum(stages.values()), 1e-9)
            return View(job, position, left_s=left_s, percent=min(99, max(0, int(100 * share))))
        return View(job, percent=100 if job.state is State.COMPLETED else 0)

    def running_s(self) -> float:
        """Estimated device-seconds left of everything that runs."""
        return sum(
            _left_s(self.costs.stages(job.request.params), self.board.position(job.id))
            for job in self.store.in_state(State.RUNNING)
        )

    def cancel(self, job_id: str) -> bool:
        """Queued or running: it will not be finished. False if it is final already, or not there."""
        now = self.clock()
        job = self.store.cancel(job_id, now)
        if job is None:
            return False
        self._refusals.freed()
        with self._claims:  # one that has claimed it can be stopped by now
            self._stops.stop(job_id)
        self._count(job, State.CANCELLED, now)
        self.board.clear(job_id)
        return True

    def delete(self, job_id: str) -> bool:
        """Row and files are gone when this returns, its device is told to stop. False if it is not there."""
        self.cancel(job_id)
        if self.store.delete(job_id) is None:
            return False
        self.outputs.delete(job_id)
        self.board.clear(job_id)
        log.info("deleted", extra={"job": job_id})
        return True

    # What supervisors do.

    def claim(
        self,
        loaded: Collection[Bucket],
        begin: Callable[[Job], None],
        stop: Callable[[str], None],
        wait_s: float = 0.0,
    ) -> Job | None:
        """The next job, now running, waited for so long. `begin` has ordered its making when this returns, in
        whichever thread was the first to know; `stop` ends it when somebody cancels it.
        """
        now = self.clock()

        def pick(queued: Sequence[Job]) -> Job | None:
            return schedule.choose(queued, loaded, now, self.limits.overtake_s)

        with self._claims:
            job = self.store.claim(pick, now, now + self.limits.lease_s)
            if job:
                self._stops.add(job, stop)
                begin(job)
                self._refusals.freed()
                return job
            self._idle.append(waiter := Waiter(loaded, begin, stop))
        waiter.wait(wait_s)
        if waiter.job is None:
            with self._claims:
                if waiter in self._idle:
                    self._idle.remove(waiter)
        return waiter.job

    def wake_idle(self) -> None:
        """Every claim that waits for a job is answered."""
        with self._claims:
            while self._idle:
                self._idle.pop().wake()

    def begun(self, job: Job) -> None:
        """What was claimed is being made. Its device no longer waits for anybody: others may hear of it."""
        self.metrics.waited.observe(self.clock() - job.created_at)
        if job.started_at != job.created_at:  # else it was never queued, and nothing has changed
            self.board.clear(job.id)  # everyone behind it moves up
        log.info("started", extra={"job": job.id, "attempt": job.attempts})

    def renew(self, job: Job) -> bool:
        """False: it was cancelled or deleted, and nobody waits for it."""
        return self.store.renew(job, self.clock() + self.limits.lease_s)

    def publish(self, job: Job, partial: Path, done: Done) -> Callable[[], None]:
        """The file in its place, then the row completed. Not its claimer's any more: neither. Returns what is
        left to do and keeps nobody waiting: the books.

        As long as the lease lasts nobody else can put a file of this job there, and what has to go if it was
        cancelled meanwhile is ours. A database that fails is asked again for a lease's time: a video that is
        made is worth it.
        """
        completed, now = False, self.clock()
        if patiently(lambda: self._will_hold(job), self.limits.lease_s):
            final = self.outputs.video(job.id)
            output = self.outputs.publish(partial, final, done.seconds)
            now = self.clock()
            completed = patiently(lambda: self.store.complete(job, output, now), self.limits.lease_s)
            if not completed:
                final.unlink(missing_ok=True)
        self.leave(job)

        def keep_books() -> None:
            self.costs.learn(job.request.params, done.seconds)
            if completed:
                self._observe(job, done)
                self._count(job, State.COMPLETED, now)

        return keep_books

    def fail(self, job: Job, fault: Fault) -> None:
        """One attempt failed: queued once more if another may end otherwise and there is one left."""
        if fault.code == "numerical_error":
            self.metrics.numerical.inc()
        if fault.code in WORTH_ANOTHER and job.attempts < self.limits.attempts:
            self.requeue(job, refund=False)
        elif self.store.fail(job, fault, now := self.clock()):
            self._count(job, State.FAILED, now)
        log.warning("attempt failed", extra={"job": job.id, "attempt": job.attempts, "code": fault.code})
        self.leave(job)

    def requeue(self, job: Job, *, refund: bool) -> None:
        self.store.requeue(job, refund=refund)
        self.leave(job)

    def leave(self, job: Job) -> None:
        """Its claimer no longer works on it. If it is queued again, another may already."""
        stopped_s = self._stops.remove(job)
        if stopped_s is not None:
            self.metrics.cancelled.observe(stopped_s)
        self.board.clear(job.id)

    def _create(
        self, request: VideoRequest, estimate_s: float, admitted: Admit, key: IdempotencyKey | None
    ) -> tuple[Job, bool]:
        """With the claims locked. The first idle device that has the engines for the job, else the first, is
        handed it, or looks who comes before. What it is handed is being made while its row gets to the disk.
        """
        now, bucket = self.clock(), request.params.bucket
        if not self._idle:
            return self.store.create(request, estimate_s, now, admitted, key)
        waiter = next((w for w in self._idle if bucket in w.loaded), self._idle[0])
        handed: list[Job] = []

        def hand(job: Job) -> None:
            handed.append(job)
            self._stops.add(job, waiter.stop)
            waiter.begin(job)  # its own thread would have to wait for this one's core

        lease_until = now + self.limits.lease_s
        try:
            job, new = self.store.create(request, estimate_s, now, admitted, key, lease_until, hand)
        except BaseException:
            for job in handed:  # a job without a row; what its device says of it is not heard
                self._stops.stop(job.id)
                self._stops.remove(job)
            raise
        if new:
            self._idle.remove(waiter)
            waiter.wake(job if handed else None)
        return job, new

    # Housekeeping.

    def recover(self, *, started: bool) -> None:
        """Take back what died with a server, or with a supervisor whose lease ran out."""
        for job in self.store.recover(self.limits.attempts, self.clock(), started=started):
            log.warning("recovered", extra={"job": job.id, "attempt": job.attempts})
            self._stops.stop(job.id, job.owner)
            self.leave(job)

    def sweep(self) -> None:
        """Delete what has outlived its time, and files that belong to no video.

        A server that died between a file and its row leaves one to a job that may fail or be cancelled later.
        """
        for job in self.store.finished_before(self.clock() - self.limits.retention_s):
            self.delete(job.id)
        for job_id in self.outputs.owners():
            owner = self.store.get(job_id)
            if owner is None or owner.state in (State.FAILED, State.CANCELLED):
                log.warning("a file without a video", extra={"job": job_id})
                self.outputs.delete(job_id)

    def _will_hold(self, job: Job) -> bool:
        """For half a lease and more; renewed if less is left."""
        until = self.store.held_until(job)
        if until is None:
            return False
        return until - self.clock() > self.limits.lease_s / 2 or self.renew(job)

    def _observe(self, job: Job, done: Done) -> None:
        for stage, seconds in done.seconds.items():
            self.metrics.stage.labels(stage).observe(seconds)
        per_step = done.seconds.get("denoise", 0.0) / job.request.params.num_inference_steps
        self.metrics.step.labels(label_of(job.bucket)).observe(per_step)

    def _count(self, job: Job, state: State, now: float) -> None:
        """It has ended so."""
        seconds = now - job.created_at
        self.metrics.requests.labels(state, label_of(job.bucket)).inc()
        self.metrics.duration.labels(state).observe(seconds)
        log.info("ended", extra={"job": job.id, "state": state, "s": round(seconds, 3)})


def _left_s(stages: Mapping[str, float], position: Position | None) -> float:
    """Of a job that runs and takes so long for each stage, all of them if it has not been heard of."""
    if position is None:
        return sum(stages.values())
    return remaining(stages, position.stage, position.done, position.total)
