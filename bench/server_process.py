"""The real server on the embedded model and the CPU, as a process that a benchmark may kill.

Its log is read as it comes; of each line only what a benchmark asks about is kept.
"""

import collections
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hyvideo_rt.bench.conditions import ROOT

START_S = 600  # at most; on a machine with other work it takes its time
HOST = "127.0.0.1"
SERVE = ("-m", "hyvideo_rt.cli.main")


@dataclass
class Log:
    """Of one server or of several, one after the other.

    endings: how often each job is said to have ended; completed: how many were; troubles: errors, each with
    the last line of its traceback, and lines of no format.
    """

    endings: collections.Counter[str] = field(default_factory=collections.Counter)
    completed: int = 0
    troubles: list[str] = field(default_factory=list)

    def read(self, pipe: IO[str]) -> None:
        """Until the process has ended."""
        with pipe:
            for line in pipe:
                self.take(line)

    def take(self, line: str) -> None:
        try:
            content: dict[str, Any] = json.loads(line)
        except ValueError:
            self.troubles.append(line.rstrip())
            return
        if content["message"] == "ended":
            self.endings[content["job"]] += 1
            self.completed += content["state"] == "completed"
        if "error" in content or content["level"] == "error" or "Traceback" in content["message"]:
            last = content.get("error", "").rstrip().rpartition("\n")[2]  # of the traceback
            self.troubles.append(f"{content['message']} {last}".rstrip())


class ServerProcess:
    """On one data folder and port, with as many processes after one another as are killed."""

    def __init__(self, data_dir: Path, *flags: str, program: Sequence[str] = SERVE) -> None:
        self.data_dir, self.port, self.log = data_dir, free_port(), Log()
        self.url = f"http://{HOST}:{self.port}"
        words = ["serve", "--model", "tiny", "--device", "cpu", "--data-dir", str(data_dir)]
        words += ["--port", str(self.port), "--min-free-gib", "0", *flags]
        self._command = [sys.executable, *program, *words]
        self.start()

    def start(self) -> None:
        """Returns at once; `wait_ready` waits."""
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, env=environment, text=True)
        self._reader = threading.Thread(target=self.log.read, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def worker(self) -> "Child | None":
        """None while there is none that lives."""
        return next((child for child in children(self.pid) if child.is_alive), None)

    @property
    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def wait_ready(self) -> "ServerProcess":
        deadline = time.monotonic() + START_S
        while not self.is_ready:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"the server did not become ready: {self.log.troubles[-3:]}")
            time.sleep(0.05)
        return self

    def kill(self) -> None:
        """SIGKILL. The worker ends itself when it notices."""
        self._process.kill()
        self._end()

    def stop(self) -> None:
        """SIGTERM: what runs is finished."""
        self._process.terminate()
        self._end()

    def _end(self) -> None:
        self._process.wait()
        self._reader.join(timeout=START_S)  # the last lines, too


@contextlib.contextmanager
def running_server(data_dir: Path, *flags: str, program: Sequence[str] = SERVE) -> Iterator[ServerProcess]:
    """Ready. Ends with SIGTERM."""
    server = ServerProcess(data_dir, *flags, program=program)
    try:
        yield server.wait_ready()
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port


@dataclass(frozen=True)
class Child:
    """A process by its id and when it was started, in ticks: the id alone is soon another's."""

    pid: int
    started: int

    @property
    def is_alive(self) -> bool:
        """One that has ended and was not waited for is not."""
        state = _stat(self.pid)
        return state is not None and state[0] != "Z" and int(state[STARTED]) == self.started


STARTED = 19  # of the fields behind the name in /proc/PID/stat


def children(pid: int) -> list[Child]:
    """Of all threads of a process; none of one that has ended."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, thread.read_text().split())
    stats = {child: _stat(child) for child in sorted(found)}
    return [Child(child, int(state[STARTED])) for child, state in stats.items() if state]


def _stat(pid: int) -> list[str] | None:
    """The fields behind the name, the state first; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
