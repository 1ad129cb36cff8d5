"""The real server, whose worker also makes videos that nobody asked the server for.

Two processes on the same weights differ by some per cent all their life, and a server adds no more than that:
both ways have to be measured in one process, the worker's own.
`python -m hyvideo_rt.bench.bare_server SOCKET serve FLAGS` listens on the Unix socket SOCKET, too.
"""

import argparse
import contextlib
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hyvideo_rt.bench.server_process import ServerProcess, running_server
from hyvideo_rt.cli.load import load_for_server
from hyvideo_rt.cli.main import build_parser
from hyvideo_rt.cli.serve import settings_of
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.server.capabilities import Capabilities
from hyvideo_rt.server.jobs import VideoRequest
from hyvideo_rt.server.protocol import Generate
from hyvideo_rt.server.run import serve
from hyvideo_rt.server.settings import WorkerSpec
from hyvideo_rt.server.worker import Wire, run
from hyvideo_rt.video import save_mp4

MODULE = "hyvideo_rt.bench.bare_server"
WORKER = "worker"


@dataclass(frozen=True)
class Bare(Generate):
    """A video that the server knows nothing of; `answer` is told its seconds, from prompt to file."""

    answer: Callable[[float], None]


class Orders(queue.SimpleQueue[Generate]):
    """What the worker takes its requests from; bare ones end here, in the thread that serves the others."""

    pipeline: Pipeline

    def get(self, block: bool = True, timeout: float | None = None) -> Generate:
        while isinstance(order := super().get(block, timeout), Bare):
            request = VideoRequest.from_json(order.request)
            start = time.perf_counter()
            save_mp4(self.pipeline.generate(request.prompt, request.params), Path(order.path))
            order.answer(time.perf_counter() - start)
        return order


class SideDoor:
    """A client of the socket: `seconds` of one bare video, as the worker has measured them."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._answers = self._socket.makefile("r")

    def seconds(self, request: VideoRequest) -> float:
        self._socket.sendall(json.dumps(request.to_json()).encode() + b"\n")
        return float(self._answers.readline())


@contextlib.contextmanager
def running_bare_server(folder: Path) -> Iterator[tuple[ServerProcess, SideDoor]]:
    """Ready, with its data and its socket in `folder`. Ends with SIGTERM."""
    door = folder / "door"
    with running_server(folder / "data", program=("-m", MODULE, str(door))) as server:
        yield server, SideDoor(door)


def _open(door: Path, orders: Orders) -> None:
    """For one client."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(door))
        listening.listen()
        client, _ = listening.accept()
    for line in client.makefile("r"):
        orders.put(
            Bare(
                id="bare",
                request=json.loads(line),
                path=str(door.with_name("bare.mp4")),
                answer=lambda seconds: client.sendall(f"{seconds}\n".encode()),
            )
        )


def _worker(door: Path, flags: str) -> int:
    """As `hyvideo_rt.cli.worker`, with the door open before the server hears that it is ready."""
    wire_out = os.dup(1)
    os.dup2(2, 1)
    wire, orders = Wire(sys.stdin.buffer, wire_out), Orders()
    wire.requests = orders

    def load() -> tuple[Pipeline, Capabilities]:
        loaded = load_for_server(argparse.Namespace(**json.loads(flags)))
        orders.pipeline = loaded[0]
        threading.Thread(target=_open, args=(door, orders), daemon=True).start()
        return loaded

    return run(load, wire)


def _server(door: str, words: list[str]) -> int:
    settings = settings_of(build_parser().parse_args(words))
    command = (sys.executable, "-m", MODULE, WORKER, door)
    workers = (WorkerSpec(spec.device, (*command, spec.command[-1])) for spec in settings.workers)
    return serve(replace(settings, workers=tuple(workers)))


def main() -> int:
    if sys.argv[1] == WORKER:
        return _worker(Path(sys.argv[2]), sys.argv[3])
    return _server(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
