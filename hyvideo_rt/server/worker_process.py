"""The server's end of a worker: starts it, talks to it, ends it."""

import collections
import contextlib
import logging
import os
import select
import signal
import subprocess
import threading
from collections.abc import Sequence
from typing import IO

from hyvideo_rt.server import protocol
from hyvideo_rt.server.protocol import Cancel, Message

CHUNK = 1 << 16  # bytes; what a pipe holds
log = logging.getLogger(__name__)


class WorkerLost(Exception):
    """The process has ended, with a status if of itself, or speaks no sense any more."""

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


class WorkerHung(WorkerLost):
    """It was ended because it made no progress."""


class WorkerProcess:
    """A child in a session of its own: Ctrl-C is for the server, and killing it ends what it started too.

    One thread receives, and closes; any may send and kill.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._messages: collections.deque[Message] = collections.deque()
        self._unfinished, self._ended = b"", False
        self._writing = threading.Lock()
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout
        assert stderr
        self._pipe, self._arrivals = stdout, select.poll()
        self._arrivals.register(stdout, select.POLLIN)
        threading.Thread(target=self._relay, args=(stderr,), daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Message) -> None:
        """Raises WorkerLost."""
        stdin = self._process.stdin
        assert stdin
        if self._process.poll() is not None:  # what it has forked may still hold the pipe
            raise WorkerLost("it has ended")
        try:
            with self._writing:
                stdin.write(protocol.encode(message))
                stdin.flush()
        except (OSError, ValueError) as error:
            raise WorkerLost("it no longer reads") from error

    def cancel(self, job_id: str) -> None:
        """A request; the answer is a message Failed. Nothing to cancel in a process that has ended."""
        with contextlib.suppress(WorkerLost):
            self.send(Cancel(job_id))

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, None if there is none for so long. Raises WorkerLost after the last one."""
        if not self._messages and not self._ended:
            self._read(timeout_s)
        if self._messages:
            return self._messages.popleft()
        # The pipe stays open after its end if something that it has forked holds it.
        if not self._ended and self._process.poll() is None:
            return None
        status = self._process.wait()
        raise WorkerLost(f"it ended with status {status}", status)

    def kill(self) -> None:
        """At once; returns when it is gone. Twice does no harm."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            assert self._process.stdin
            self._process.stdin.close()

    def close(self) -> None:
        """After it was killed, by the thread that receives."""
        self._pipe.close()

    def _read(self, timeout_s: float) -> None:
        """Whatever comes first within so long."""
        if not self._arrivals.poll(1000 * timeout_s):
            return
        content = os.read(self._pipe.fileno(), CHUNK)
        *lines, self._unfinished = (self._unfinished + content).split(b"\n")
        try:
            for line in lines:
                self._messages.append(protocol.decode(line))
        except protocol.Garbled as error:
            log.error("worker %d sent no message: %s", self.pid, error)
            self.kill()
            self._ended = True
        self._ended = self._ended or not content

    def _relay(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                log.info("%s", line.decode(errors="replace").rstrip(), extra={"worker": self.pid})
