"""Keeps one worker process alive, warm and busy. What kills it costs one attempt of one job."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.server.board import Position
from hyvideo_rt.server.capabilities import Capabilities
from hyvideo_rt.server.database import DatabaseFailed
from hyvideo_rt.server.desk import Desk
from hyvideo_rt.server.jobs import Fault, Job, VideoRequest, new_job_id
from hyvideo_rt.server.metrics import label_of
from hyvideo_rt.server.outputs import FULL, Outputs
from hyvideo_rt.server.protocol import CANNOT_LOAD, Done, Failed, Generate, Progress, Ready
from hyvideo_rt.server.settings import Settings, WorkerSpec
from hyvideo_rt.server.watchdog import Watchdog
from hyvideo_rt.server.worker_process import WorkerHung, WorkerLost, WorkerProcess

TICK_S = 0.25
BOOKS_S = 0.002  # that the books of a video wait for another: its client is answered by this interpreter, too
DATABASE_PAUSE_S = 1.0  # before a database that has failed is asked again
WARM_PROMPT, WARM_STEPS = "a red circle moves right", 2
LOST = Fault("worker_lost", "the process that made this video ended; try again, or a smaller size")
HUNG = Fault("timeout", "this video made no progress for too long and was stopped")
log = logging.getLogger(__name__)


class Supervisor(threading.Thread):
    """One device's thread. `broken` after several fast deaths in a row, until a worker lives again.

    `hopeless` is told when the first process says that it can never load: flags or files have to change.
    """

    def __init__(
        self, spec: WorkerSpec, settings: Settings, desk: Desk, hopeless: Callable[[], None]
    ) -> None:
        super().__init__(name=f"supervisor-{spec.device}", daemon=True)
        self.spec, self.settings, self.desk, self._hopeless = spec, settings, desk, hopeless
        self.capabilities: Capabilities | None = None  # of the last worker that was ready
        self.warm = False
        self.deaths = 0  # fast ones in a row
        self.job: Job | None = None
        self._warm_at: float | None = None
        self._loaded: set[Bucket] = set()
        self._worker: WorkerProcess | None = None
        self._books: Callable[[], None] | None = None  # of the last video, not kept yet
        self._draining, self._leaving = threading.Event(), threading.Event()

    @property
    def broken(self) -> bool:
        return not self.warm and self.deaths >= self.settings.limits.breaker_deaths

    @property
    def pid(self) -> int | None:
        return self._worker.pid if self._worker else None

    def drain(self) -> None:
        """Finish what runs, begin nothing new."""
        self._draining.set()
        self.desk.wake_idle()

    def leave(self) -> None:
        """At once: what runs goes back to the queue, its attempt uncounted."""
        self._draining.set()
        self._leaving.set()
        if self._worker:
            self._worker.kill()

    def run(self) -> None:
        starts = 0
        while not self._draining.is_set():
            if starts:
                self.desk.metrics.restarts.labels(self.spec.device).inc()
            starts += 1
            try:
                self._live()
            except WorkerLost as death:
                self._mourn(death)
            except Exception:
                log.exception("the supervisor of %s failed and starts over", self.spec.device)
                self.deaths += 1
            finally:
                self._bury()
            self._leaving.wait(self._backoff_s())

    def _live(self) -> None:
        """From the start of a process to its end. Raises WorkerLost unless it was told to leave."""
        worker = self._worker = WorkerProcess(self.spec.command)
        self.capabilities = self._await_ready(worker)
        for bucket in self.settings.warm:
            self._warm_up(worker, bucket)
        self.warm, self._warm_at = True, time.monotonic()
        self.desk.metrics.up.labels(self.spec.device).set(1)
        log.info("worker is warm", extra={"worker": worker.pid, "device": self.spec.device})
        while not self._draining.is_set():
            try:
                self._work(worker)
            except DatabaseFailed:
                self._leaving.wait(DATABASE_PAUSE_S)

    def _work(self, worker: WorkerProcess) -> None:
        """One job, or a while without one.

        Raises DatabaseFailed, which is no fault of the worker's: it stays warm. The row stays as it is and is
        taken back when its lease has run out.
        """
        order = _Order(worker, self.desk.outputs)
        wait_s = BOOKS_S if self._books else TICK_S
        job = self.desk.claim(self._loaded, order.send, worker.cancel, wait_s)
        if job is None:
            order.forget()
            self._keep_books()
            while worker.receive(0):  # an idle worker that has died is noticed
                pass
        elif order.lost:
            with contextlib.suppress(DatabaseFailed):
                self.desk.requeue(job, refund=True)
            raise order.lost
        else:
            assert order.partial
            self._run_job(worker, job, order.partial)

    def _await_ready(self, worker: WorkerProcess) -> Capabilities:
        deadline = time.monotonic() + self.settings.limits.start_s
        while time.monotonic() < deadline:
            message = worker.receive(TICK_S)
            if self._leaving.is_set():
                raise WorkerLost("it is no longer wanted")
            if isinstance(message, Ready):
                return Capabilities.from_json(message.capabilities)
        raise WorkerHung("it was not ready in time")

    def _warm_up(self, worker: WorkerProcess, bucket: Bucket) -> None:
        """A short video on the way that every request takes; whatever is compiled or allocated, is now."""
        params = SamplingParams(bucket, seed=0, num_inference_steps=WARM_STEPS)
        job_id = new_job_id()
        partial = self.desk.outputs.new_partial(job_id)
        watchdog = self._watchdog(params, floor_s=self.settings.limits.start_s)
        try:
            worker.send(Generate(job_id, VideoRequest(WARM_PROMPT, params).to_json(), str(partial)))
            answer = self._await_answer(worker, job_id, watchdog)
        finally:
            self.desk.outputs.discard(partial)
            self.desk.board.clear(job_id)
        if isinstance(answer, Failed):
            raise WorkerLost(f"the warm-up of {bucket} failed: {answer.code}: {answer.message}")
        self._loaded.add(bucket)
        self.desk.costs.learn(params, answer.seconds)

    def _run_job(self, worker: WorkerProcess, job: Job, partial: Path) -> None:
        """One attempt, which was ordered, to whichever end."""
        self.job = job
        watchdog = self._watchdog(job.request.params, floor_s=self.settings.limits.watchdog_floor_s)
        try:
            self.desk.begun(job)
            self._keep_books()
            answer = self._await_answer(worker, job.id, watchdog, lambda: self._is_wanted(job))
            if isinstance(answer, Done):
                self._finish(job, partial, answer)
            else:
                self.desk.fail(job, Fault(answer.code, answer.message))
        except WorkerLost as death:
            with contextlib.suppress(DatabaseFailed):
                self._give_back(job, HUNG if isinstance(death, WorkerHung) else LOST)
            raise
        except DatabaseFailed:
            self.desk.leave(job)
            raise
        finally:
            self.job = None
            self.desk.outputs.discard(partial)

    def _is_wanted(self, job: Job) -> bool:
        try:
            return self.desk.renew(job)
        except DatabaseFailed:
            return True  # nobody else could take or cancel it

    def _finish(self, job: Job, partial: Path, done: Done) -> None:
        if job.bucket not in self._loaded:
            self.desk.metrics.swaps.labels(label_of(job.bucket)).inc()
            self._loaded.add(job.bucket)
        self.desk.metrics.peak.labels(self.spec.device).set(done.peak_bytes)
        self.deaths = 0
        try:
            self._books = self.desk.publish(job, partial, done)
        except OSError as error:
            log.exception("a video could not be published", extra={"job": job.id})
            self.desk.outputs.discard(self.desk.outputs.video(job.id))
            code = "disk_full" if error.errno in FULL else "output_error"
            self.desk.fail(job, Fault(code, "the finished video could not be stored"))

    def _keep_books(self) -> None:
        """Of the video before, once the device has its next one or there is none."""
        books, self._books = self._books, None
        if books:
            books()

    def _give_back(self, job: Job, fault: Fault) -> None:
        if self._leaving.is_set():
            self.desk.requeue(job, refund=True)
        else:
            self.desk.fail(job, fault)

    def _await_answer(
        self,
        worker: WorkerProcess,
        job_id: str,
        watchdog: Watchdog,
        renew: Callable[[], bool] = lambda: True,
    ) -> Done | Failed:
        """To the order that was sent. Raises WorkerHung by the watchdog's word."""
        renewed = time.monotonic()
        while True:
            message, now = worker.receive(TICK_S), time.monotonic()
            if isinstance(message, Done | Failed) and message.id == job_id:
                return message
            if isinstance(message, Progress) and message.id == job_id:
                watchdog.moved(message, now)
                self.desk.board.move(job_id, Position(message.stage, message.done, message.total))
            elif message is not None:
                watchdog.heard(now)
            if complaint := watchdog.complaint(now):
                raise WorkerHung(complaint)
            if now - renewed > self.settings.limits.lease_s / 3:
                renewed = now
                if not renew():
                    worker.cancel(job_id)

    def _watchdog(self, params: SamplingParams, floor_s: float) -> Watchdog:
        stages = self.desk.costs.stages(params)
        return Watchdog(stages, self.settings.limits, floor_s, time.monotonic())

    def _mourn(self, death: WorkerLost) -> None:
        """A death is fast while it loads, however long that takes, and soon after it was warm."""
        if self._leaving.is_set():
            return
        slow = (
            self._warm_at is not None and time.monotonic() - self._warm_at > self.settings.limits.fast_death_s
        )
        self.deaths = 1 if slow else self.deaths + 1
        if death.status == CANNOT_LOAD and self.capabilities is None:
            self._hopeless()
        log.error("worker of %s lost: %s", self.spec.device, death, extra={"worker": self.pid})

    def _bury(self) -> None:
        self._keep_books()
        if self._worker:
            self._worker.kill()
            self._worker.close()
        self._worker, self.warm, self._warm_at = None, False, None
        self._loaded.clear()
        self.desk.metrics.up.labels(self.spec.device).set(0)

    def _backoff_s(self) -> float:
        """Nothing after the first death, then 1, 2, 4 ... seconds."""
        if self.deaths < 2:
            return 0.0
        return min(self.settings.limits.max_backoff_s, 2.0 ** min(self.deaths - 2, 30))


class _Order:
    """Sent by whichever thread has the job; `lost` says why the worker never got it."""

    partial: Path | None = None
    lost: WorkerLost | None = None

    def __init__(self, worker: WorkerProcess, outputs: Outputs) -> None:
        self._worker, self._outputs = worker, outputs

    def send(self, job: Job) -> None:
        self.forget()
        self.partial = self._outputs.new_partial(job.id)
        try:
            self._worker.send(Generate(job.id, job.request.to_json(), str(self.partial)))
        except WorkerLost as lost:
            self.lost = lost

    def forget(self) -> None:
        """What was sent for a job that came to nothing: its row could not be written."""
        if self.partial:
            self._outputs.discard(self.partial)
