"""The process that owns the device, with the embedded model: it stops when told, and says why it failed."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stubs import request_for, wait_for

from hyvideo_rt import errors
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.server import protocol, worker
from hyvideo_rt.server.jobs import VideoRequest
from hyvideo_rt.server.protocol import Cancel, Done, Failed, Generate, Message, Progress
from hyvideo_rt.server.worker import FATAL, Wire, fault_of, serve


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(embedded_tiny(), torch.device("cpu"))


class ToldAtOnce(Wire):
    """Every report goes out when it is made, without `beat`."""

    def report(self, progress: Progress) -> None:
        self.send(progress)


class Pipes:
    """A wire whose other end we hold: what the worker sends, as messages, and a way to send to it."""

    def __init__(self, kind: type[Wire] = ToldAtOnce) -> None:
        down, self._down = os.pipe()
        up, self._up = os.pipe()
        self.wire = kind(os.fdopen(down, "rb"), self._up)
        self.sent = os.fdopen(up, "rb")

    def tell(self, message: Message) -> None:
        os.write(self._down, protocol.encode(message))

    def messages(self) -> Iterator[Message]:
        return map(protocol.decode, self.sent)

    def hang_up(self) -> None:
        os.close(self._up)


def order(tmp_path: Path, steps: int = 4, bucket: Bucket | None = None) -> Generate:
    request = request_for("a red circle moves right")
    params = replace(request.params, num_inference_steps=steps, bucket=bucket or request.params.bucket)
    return Generate("job", VideoRequest(request.prompt, params).to_json(), str(tmp_path / "out.mp4"))


def serve_watched(pipeline: Pipeline, request: Generate, cancel_at: tuple[str, int]) -> list[Progress]:
    """All progress of a request that is cancelled from outside when it reports this stage and count."""
    pipes, seen, answers = Pipes(), list[Progress](), list[Message]()

    def run() -> None:
        answers.append(serve(pipeline, request, pipes.wire))
        pipes.hang_up()

    listener = threading.Thread(target=_listen_once, args=(pipes.wire,))
    listener.start()
    worker = threading.Thread(target=run)
    worker.start()
    for message in pipes.messages():
        assert isinstance(message, Progress)
        seen.append(message)
        if (message.stage, message.done) == cancel_at:
            pipes.tell(Cancel(request.id))
    worker.join()
    assert isinstance(answers[0], Failed)
    assert answers[0].code == "cancelled"
    return seen


def _listen_once(wire: Wire) -> None:
    """`Wire.listen` for one line: the real one ends the process."""
    message = protocol.decode(wire._reader.readline())
    assert isinstance(message, Cancel)
    wire.cancelled.add(message.id)


def test_denoising_stops_within_two_steps(pipeline: Pipeline, tmp_path: Path) -> None:
    seen = serve_watched(pipeline, order(tmp_path, steps=500), cancel_at=("denoise", 5))
    assert seen[-1].stage == "denoise"
    assert seen[-1].done <= 7
    assert not (tmp_path / "out.mp4").exists()


def test_decoding_stops_within_a_tile(pipeline: Pipeline, tmp_path: Path) -> None:
    """A size of several tiles."""
    request = order(tmp_path, steps=1, bucket=Bucket(464, 64, 17))
    seen = serve_watched(pipeline, request, cancel_at=("decode", 0))
    assert seen[-1].stage == "decode"
    assert seen[-1].total > 2
    assert seen[-1].done <= 1


def test_a_request_reports_every_stage_and_writes_its_file(pipeline: Pipeline, tmp_path: Path) -> None:
    pipes = Pipes()
    answer = serve(pipeline, order(tmp_path), pipes.wire)
    pipes.hang_up()
    assert isinstance(answer, Done)
    assert list(answer.seconds) == ["load", "encode", "denoise", "decode", "write"]
    reported = [message for message in pipes.messages() if isinstance(message, Progress)]
    told = list(dict.fromkeys(message.stage for message in reported))
    assert told == ["encode", "denoise", "decode", "write"], "there are no engines to load"
    assert [m.done for m in reported if m.stage == "denoise"] == [0, 1, 2, 3, 4]
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def test_engines_are_said_to_load_before_they_do() -> None:
    told: list[tuple[object, ...]] = []

    class Engines:
        def warm(self, sizes: list[Bucket]) -> None:
            told.append(("warm", *sizes))

    class WithEngines:
        def engines_for(self, bucket: Bucket) -> Engines:
            return Engines()

    size = Bucket(64, 64, 17)
    worker._load(WithEngines(), size, lambda *report: told.append(report))  # type: ignore[arg-type]
    assert told == [("load", 0, 1), ("warm", size)]


def test_of_several_reports_the_latest_is_told() -> None:
    """A beat apart, and none that the answer has overtaken; without any, that the process lives."""
    pipes, done = Pipes(Wire), Done("job", {}, 0)
    first, second, third = (Progress("job", "denoise", step, 9) for step in range(3))
    meanwhile: list[list[Progress | Done]] = [[first, second], [], [third, done], []]

    def pause(seconds: float) -> None:
        assert seconds == worker.PROGRESS_S
        for message in meanwhile.pop(0):
            if isinstance(message, Progress):
                pipes.wire.report(message)
            else:
                pipes.wire.send(message)

    with pytest.raises(IndexError):  # after the last of them
        pipes.wire.beat(pause)
    pipes.hang_up()
    assert list(pipes.messages()) == [protocol.Heartbeat(), second, done]


def test_a_report_never_follows_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a beat that never sleeps, and another thread's turn while a message is on its way."""
    encode = protocol.encode

    def slowly(message: Message) -> bytes:
        time.sleep(0)
        return encode(message)

    monkeypatch.setattr(protocol, "encode", slowly)
    pipes, jobs, ended = Pipes(Wire), 2000, threading.Event()

    class Over(Exception):
        pass

    def pause(_: float) -> None:
        if ended.is_set():
            raise Over

    def beat() -> None:
        with contextlib.suppress(Over):
            pipes.wire.beat(pause)

    def make() -> None:
        for job in range(jobs):
            for step in range(3):
                pipes.wire.report(Progress(f"{job}", "denoise", step, 3))
            pipes.wire.send(Done(f"{job}", {}, 0))
        ended.set()

    threads = [threading.Thread(target=target) for target in (beat, make)]
    for thread in threads:
        thread.start()
    told, late, answered = 0, 0, 0
    while answered < jobs:
        message = next(pipes.messages())
        if isinstance(message, Done):
            answered += 1
        elif isinstance(message, Progress):
            told += 1
            late += int(message.id) != answered
    for thread in threads:
        thread.join()
    assert told > 0
    assert late == 0


def test_after_a_failure_the_next_request_works(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def no_room(*_: object) -> None:
        tried.append(pipeline.offload)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB at 0x7f00")

    pipes = Pipes()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "decode", no_room)
        failed = serve(pipeline, order(tmp_path), pipes.wire)
    assert isinstance(failed, Failed)
    assert failed.code == "out_of_memory"
    assert "0x7f00" not in failed.message
    assert tried == [False, True], "once more with the networks on the host"
    assert isinstance(serve(pipeline, order(tmp_path), pipes.wire), Done)
    assert not pipeline.offload


def test_what_fits_only_with_the_networks_on_the_host_is_made_so(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, pipes = pipeline.decode, Pipes()
    where = []

    def tight(*args: Any) -> Iterator[torch.Tensor]:
        where.append(pipeline.offload)
        if not pipeline.offload:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(*args)

    assert isinstance(serve(pipeline, order(tmp_path), pipes.wire), Done)
    expected = (tmp_path / "out.mp4").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "decode", tight)
        assert isinstance(serve(pipeline, order(tmp_path), pipes.wire), Done)
    assert where == [False, True]
    assert not pipeline.offload, "the next video is as fast as ever"
    assert (tmp_path / "out.mp4").read_bytes() == expected


@pytest.mark.parametrize(("bias", "words"), [(float("nan"), "NaN"), (-50.0, "every pixel")])
def test_a_broken_or_black_picture_is_a_failure_and_no_file(
    pipeline: Pipeline, tmp_path: Path, bias: float, words: str
) -> None:
    pipes, last = Pipes(), pipeline.vae.decoder.conv_out.conv
    kept = {name: value.clone() for name, value in last.state_dict().items()}
    assert last.bias is not None
    last.weight.data.zero_()
    last.bias.data.fill_(bias)
    try:
        failed = serve(pipeline, order(tmp_path), pipes.wire)
    finally:
        last.load_state_dict(kept)
    assert isinstance(failed, Failed)
    assert failed.code == "numerical_error"
    assert words in failed.message
    assert list(tmp_path.iterdir()) == []
    assert isinstance(serve(pipeline, order(tmp_path), pipes.wire), Done)


def full_disk() -> errors.OutputError:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise errors.OutputError("got 'No space left'") from error
    except errors.OutputError as error:
        return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Cancelled(), "cancelled"),
        (errors.NumericalError("NaN"), "numerical_error"),
        (errors.InvalidRequest("size"), "invalid_request"),
        (errors.EngineMissing("none"), "engine_error"),
        (errors.OutputError("read-only"), "output_error"),
        (full_disk(), "disk_full"),
        (torch.OutOfMemoryError("x"), "out_of_memory"),
        (torch.AcceleratorError("x"), "device_error"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "device_error"),
        (KeyError("/secret/path"), "internal_error"),
    ],
)
def test_codes(error: Exception, code: str) -> None:
    fault = fault_of(error)
    assert fault.code == code
    assert "/secret" not in fault.message
    assert (code in FATAL) is (code in ("device_error", "internal_error"))


def test_a_worker_whose_server_is_gone_leaves(tmp_path: Path) -> None:
    """While it still loads: its pipe has ended. What it prints never reaches the wire."""
    flags = {"model": "tiny", "device": "cpu"}
    command = [sys.executable, "-m", "hyvideo_rt.cli.worker", json.dumps(flags)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert ended.returncode == 0
    assert all(protocol.decode(line) for line in ended.stdout.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b'{"kind": "dance"}',
        b'{"kind": "cancel"}',
        b'{"kind": "cancel", "id": "x", "y": 1}',
    ],
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(protocol.Garbled):
        protocol.decode(line)


@pytest.mark.parametrize(
    "message",
    [
        Generate("x", {"prompt": "\u2028 😀\n"}, "x.mp4"),
        Cancel("x"),
        protocol.Ready({"device": "cpu"}),
        protocol.Heartbeat(),
        Progress("x", "denoise", 1, 2),
        Done("x", {"encode": 0.5}, 7),
        Failed("x", "timeout", "two\nlines"),
    ],
)
def test_messages_come_back_as_they_were(message: Message) -> None:
    line = protocol.encode(message)
    assert line.count(b"\n") == 1
    assert protocol.decode(line) == message


def test_a_worker_whose_server_was_killed_takes_its_own_children_along(tmp_path: Path) -> None:
    """In a group of its own, as the server starts it: a child that was forked does not stay behind."""
    code = (
        "import os, sys, threading, time\n"
        "from hyvideo_rt.server.worker import Wire\n"
        "if os.fork() == 0: time.sleep(60)\n"
        "Wire(sys.stdin.buffer, 1).listen()"
    )
    started = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, start_new_session=True)
    started.wait(30)
    wait_for(lambda: not group_lives(started.pid), timeout_s=10)  # until init has reaped the child


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_fails_unforeseen_ends_in_order() -> None:
    """Not by a signal, which would look like a crash of a library."""
    command = [sys.executable, "-m", "hyvideo_rt.cli.worker", "{}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as worker:
        assert worker.stderr
        assert worker.wait(60) == 1
        assert b"AttributeError" in worker.stderr.read()


def test_a_worker_that_cannot_load_says_why_and_leaves() -> None:
    flags = {"model": "tiny", "dit_weight": None, "device": "tpu", "warm": None}
    command = [sys.executable, "-m", "hyvideo_rt.cli.worker", json.dumps(flags)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as worker:
        assert worker.stderr
        assert worker.wait(60) == protocol.CANNOT_LOAD
        words = worker.stderr.read().decode()
    assert words.startswith("InvalidRequest: got device 'tpu'")
    assert "Traceback" not in words
