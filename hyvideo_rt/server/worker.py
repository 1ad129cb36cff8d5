"""The process that owns a device: reads requests from a pipe, makes one video at a time, reports as it goes.

A request that fails in a way nobody foresaw ends the process: what a CUDA error leaves behind is never used
again. The server starts another.
"""

import gc
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import torch

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.errors import (
    Cancelled,
    DoesNotFit,
    EngineError,
    InvalidRequest,
    NumericalError,
    OutputError,
)
from hyvideo_rt.pipeline import Pipeline, Progress
from hyvideo_rt.server import protocol
from hyvideo_rt.server.capabilities import Capabilities
from hyvideo_rt.server.jobs import Fault, VideoRequest
from hyvideo_rt.server.outputs import FULL
from hyvideo_rt.server.protocol import (
    BROKEN,
    LEFT_ALONE,
    Cancel,
    Done,
    Failed,
    Generate,
    Heartbeat,
    Message,
    Ready,
)
from hyvideo_rt.video import save_mp4

HEARTBEAT_S = 1.0
PROGRESS_S = 0.25  # from a report to the next: on a CPU each takes the cores that make the video
BEHIND_SERVER = 5
log = logging.getLogger(__name__)


class Wire:
    """Both directions to the server. Safe to write from several threads; a full line is one write."""

    def __init__(self, reader: BinaryIO, writer: int) -> None:
        self._reader, self._writer, self._lock = reader, writer, threading.Lock()
        self.requests: queue.SimpleQueue[Generate] = queue.SimpleQueue()
        self.cancelled: set[str] = set()
        self._latest: protocol.Progress | None = None  # that `beat` has not told yet

    def send(self, message: Message) -> None:
        """At once. What was reported before it and not told is out of date."""
        with self._lock:
            self._latest = None
            os.write(self._writer, protocol.encode(message))

    def report(self, progress: protocol.Progress) -> None:
        """Told by `beat`, unless a later one has come or something was sent."""
        with self._lock:
            self._latest = progress

    def listen(self) -> None:
        """For ever, in a thread of its own. When the server is gone, so is this process, whatever it does."""
        try:
            for line in self._reader:
                message = protocol.decode(line)
                if isinstance(message, Cancel):
                    self.cancelled.add(message.id)
                elif isinstance(message, Generate):
                    self.requests.put(message)
        finally:
            _end_all()

    def beat(self, pause: Callable[[float], None] = time.sleep) -> None:
        """For ever, in a thread of its own: the latest report or, after a while without, that we live."""
        told = -HEARTBEAT_S
        while True:
            now = time.monotonic()
            with self._lock:
                news, self._latest = self._latest, None
                if news or now - told >= HEARTBEAT_S:
                    os.write(self._writer, protocol.encode(news or Heartbeat()))
                    told = now
            pause(PROGRESS_S)


def _end_all() -> None:
    """This process, whatever it is doing, and what libraries have forked: OpenVINO does on import."""
    if os.getpgrp() == os.getpid():  # a group of our own, as the server starts us
        os.killpg(0, signal.SIGKILL)
    os._exit(LEFT_ALONE)


def run(load: Callable[[], tuple[Pipeline, Capabilities]], wire: Wire) -> int:
    """Serve until the server hangs up or a request breaks this process; returns the exit status."""
    for target in (wire.listen, wire.beat):
        threading.Thread(target=target, daemon=True).start()
    pipeline, capabilities = load()
    if pipeline.device.type == "cpu":
        os.nice(BEHIND_SERVER)  # which has little to do on the same cores, and somebody waits for it
    wire.send(Ready(capabilities.to_json()))
    while True:
        request = wire.requests.get()
        wire.cancelled &= {request.id}  # those that came too late for theirs are of no use
        answer = serve(pipeline, request, wire)
        wire.send(answer)
        if isinstance(answer, Failed) and answer.code in FATAL:
            return BROKEN


def serve(pipeline: Pipeline, message: Generate, wire: Wire) -> Done | Failed:
    """One request: its file is written whole, or the answer says why not."""

    def progress(stage: str, done: int, total: int) -> None:
        if message.id in wire.cancelled:
            raise Cancelled(message.id)
        wire.report(protocol.Progress(message.id, stage, done, total))

    try:
        return _make_somehow(pipeline, message, progress)
    except Exception as error:
        if not isinstance(error, Cancelled):
            log.exception("%s failed", message.id)
        fault = fault_of(error)
    _release(pipeline)
    return Failed(message.id, fault.code, fault.message)


def _make_somehow(pipeline: Pipeline, message: Generate, progress: Progress) -> Done:
    """Where memory ran out once more, in less of it: with the networks on the host."""
    try:
        return _make(pipeline, message, progress)
    except torch.OutOfMemoryError:
        if pipeline.offload:
            raise
        log.warning("%s ran out of memory; once more with the networks on the host", message.id)
    _release(pipeline)
    with pipeline.offloading():
        return _make(pipeline, message, progress)


def _make(pipeline: Pipeline, message: Generate, progress: Progress) -> Done:
    request = VideoRequest.from_json(message.request)
    if pipeline.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(pipeline.device)
    seconds = {"load": _timed(lambda: _load(pipeline, request.params.bucket, progress))}
    video = pipeline.generate(request.prompt, request.params, progress)
    progress("write", 0, 1)
    written = _timed(lambda: save_mp4(video, Path(message.path)))
    on_gpu = pipeline.device.type == "cuda"
    peak_bytes = torch.cuda.max_memory_allocated(pipeline.device) if on_gpu else 0
    return Done(message.id, {**seconds, **video.timings_s, "write": written}, peak_bytes)


def _load(pipeline: Pipeline, bucket: Bucket, progress: Progress) -> None:
    """Swap: the engines of this size, where there are any and they are not loaded yet."""
    engines = pipeline.engines_for(bucket)
    if engines:
        progress("load", 0, 1)
        engines.warm([bucket])


def _timed(act: Callable[[], None]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def _release(pipeline: Pipeline) -> None:
    """Whatever the failed request held on the device."""
    gc.collect()
    if pipeline.device.type == "cuda":
        torch.cuda.empty_cache()


FATAL = {"device_error", "internal_error"}


def fault_of(error: Exception) -> Fault:
    """What a client is told. Only our own messages are passed on: others may hold paths or addresses."""
    if isinstance(error, OutputError):
        full = _number_of(error) in FULL
        return FULL_DISK if full else Fault("output_error", "the video could not be written")
    for kind, code in OURS.items():
        if isinstance(error, kind):
            return Fault(code, str(error))
    if isinstance(error, torch.OutOfMemoryError):
        return Fault("out_of_memory", "the device ran out of memory; ask for a smaller size or fewer frames")
    if isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error):
        return Fault("device_error", "the device failed while making this video")
    return Fault("internal_error", f"{type(error).__name__} while making this video; the log has more")


FULL_DISK = Fault("disk_full", "there is no room to write the video; the server's operator has to free some")
OURS: dict[type[Exception], str] = {
    Cancelled: "cancelled",
    NumericalError: "numerical_error",
    InvalidRequest: "invalid_request",
    DoesNotFit: "does_not_fit",
    EngineError: "engine_error",
}


def _number_of(error: BaseException) -> int | None:
    """The errno of an OutputError is that of the OSError it was raised from."""
    cause = error.__cause__
    return cause.errno if isinstance(cause, OSError) else None
