"""The server's end of a worker: starts it, talks to it, ends it."""

import contextlib
import logging
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from typing import IO

from hyvideo_rt.server import protocol
from hyvideo_rt.server.protocol import Cancel, Message

log = logging.getLogger(__name__)


class WorkerLost(Exception):
    """The process has ended, with a status if of itself, or speaks no sense any more."""

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


class WorkerHung(WorkerLost):
    """It was ended because it made no progress."""


class WorkerProcess:
    """A child in a session of its own: Ctrl-C is for the server, and killing it ends what it started too."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._writing = threading.Lock()
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout
        assert stderr
        threading.Thread(target=self._read, args=(stdout,), daemon=True).start()
        threading.Thread(target=self._relay, args=(stderr,), daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Message) -> None:
        """Raises WorkerLost."""
        stdin = self._process.stdin
        assert stdin
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
        try:
            message = self._messages.get(timeout=timeout_s)
        except queue.Empty:
            # The pipe stays open after its end if something that it has forked holds it.
            message = None
            if self._process.poll() is None:
                return None
        if message is None:
            self._messages.put(None)
            status = self._process.wait()
            raise WorkerLost(f"it ended with status {status}", status)
        return message

    def kill(self) -> None:
        """At once; returns when it is gone. Twice does no harm."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            assert self._process.stdin
            self._process.stdin.close()

    def _read(self, pipe: IO[bytes]) -> None:
        try:
            with pipe:
                for line in pipe:
                    self._messages.put(protocol.decode(line))
        except protocol.Garbled as error:
            log.error("worker %d sent no message: %s", self.pid, error)
            self.kill()
        finally:
            self._messages.put(None)

    def _relay(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                log.info("%s", line.decode(errors="replace").rstrip(), extra={"worker": self.pid})
