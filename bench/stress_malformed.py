"""Requests as no client should send them, over raw connections, many at a time.

The server answers them, or hangs up; it neither fails nor ends, and afterwards it is what it was before: the
same processes, as many open files, nothing in its log, and the same video for the same seed.
"""

import asyncio
import collections
import contextlib
import os
import random
import re
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyvideo_rt.bench.malformed_requests import draw
from hyvideo_rt.bench.server_process import HOST, Child, ServerProcess, running_server
from hyvideo_rt.bench.stress_aftermath import named
from hyvideo_rt.bench.stress_client import PROMPT, Client
from hyvideo_rt.bench.stress_jobs import Tale

CONNECTIONS, STEPS = 32, 4
SILENCE_S, SHORT_S = 5.0, 0.3  # without a byte for so long nothing more is waited for
UNFINISHED = ("truncated", "random_bytes", "http_0_9")  # to most of these the server waits for more
SETTLE_S, MORE_FILES = 60, 8
NOT_IMPLEMENTED = (501, 505)  # the errors of a server that are a client's fault
BOUNDS = ("--max-queue-jobs", "10", "--max-job-seconds", "60")  # some of the requests are valid
RESET = struct.pack("ii", 1, 0)  # what SO_LINGER takes for a connection that is reset when it is closed
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")


@dataclass
class Answers:
    """Of each status and each kind how many; failures are the server's, each with its request."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    unanswered: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)

    def take(self, kind: str, payload: bytes, data: bytes) -> None:
        statuses = [int(status) for status in STATUS.findall(data)]
        self.kinds[kind] += 1
        self.statuses.update(statuses)
        if not statuses:
            self.unanswered[kind] += 1
        failed = [status for status in statuses if status >= 500 and status not in NOT_IMPLEMENTED]
        self.failures += [f"{status} to {kind} {payload[:300]!r}" for status in failed]


def malformed(count: int, seed: int) -> dict[str, Any]:
    """violations: what the server failed at, or is no longer as it was."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "data", *BOUNDS) as server:
        client = Client(server.url)
        tale = Tale("kept", {"prompt": PROMPT, "seed": seed, "steps": STEPS})
        client.create(tale)
        client.wait_end(tale)
        before, video = _state(server), client.video_of(seed)
        answers = asyncio.run(_send_all(server.port, count, seed, f"/v1/videos/{tale.id}/content"))
        seconds = time.monotonic() - start
        _clear(client)
        again = client.video_of(seed)
        client.http.close()
        after = _settled(server, before)
        violations = _violations(server, answers, before, after)
        if again != video:
            violations["another video afterwards"] = named([f"seed {seed}"])
    return {
        "requests": answers.kinds.total(),
        "seconds": round(seconds),
        "kinds": dict(sorted(answers.kinds.items())),
        "answers": dict(sorted(answers.statuses.items())),
        "unanswered": dict(sorted(answers.unanswered.items())),
        "open_files": [before.open_files, after.open_files],
        "violations": violations,
    }


async def _send_all(port: int, count: int, seed: int, path: str) -> Answers:
    answers, numbers = Answers(), iter(range(count))

    async def lane() -> None:
        for n in numbers:
            rng = random.Random(f"{seed}-{n}")
            kind, payload = draw(rng, path)
            silence_s = SHORT_S if kind in UNFINISHED else SILENCE_S
            data = await _exchange(port, payload, rng, silence_s, to_the_end=kind == "pipelined")
            answers.take(kind, payload, data)

    await asyncio.gather(*(lane() for _ in range(CONNECTIONS)))
    return answers


async def _exchange(
    port: int, payload: bytes, rng: random.Random, silence_s: float, *, to_the_end: bool
) -> bytes:
    """What came back: one answer, or all of them. The client leaves with a FIN or, as often, with a reset."""
    reader, writer = await asyncio.open_connection(HOST, port)
    if rng.random() < 0.5:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    data = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        for piece in _pieces(payload, rng):
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), silence_s)
        while to_the_end or not _is_whole(data):
            chunk = await asyncio.wait_for(reader.read(1 << 16), silence_s)
            if not chunk:
                break
            data += chunk
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return data


def _pieces(payload: bytes, rng: random.Random) -> Iterator[bytes]:
    """Whole, or cut somewhere."""
    at = rng.randrange(len(payload)) if rng.random() < 0.2 else len(payload)
    yield payload[:at]
    if payload[at:]:
        yield payload[at:]


def _is_whole(data: bytes) -> bool:
    """One answer; of a stream its head."""
    head, separator, body = data.partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    return bool(separator) and (length is None or len(body) >= int(length[1]))


@dataclass(frozen=True)
class _State:
    server: int
    worker: Child | None
    open_files: int


def _state(server: ServerProcess) -> _State:
    return _State(server.pid, server.worker, len(os.listdir(f"/proc/{server.pid}/fd")))


def _settled(server: ServerProcess, before: _State) -> _State:
    """When the connections have been noticed to be gone, or have had time to."""
    deadline = time.monotonic() + SETTLE_S
    while (after := _state(server)).open_files > before.open_files + MORE_FILES:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return after


def _clear(client: Client) -> None:
    """Of what was valid by chance."""
    for job_id in client.records():
        client.ask("DELETE", f"/v1/videos/{job_id}")


def _violations(
    server: ServerProcess, answers: Answers, before: _State, after: _State
) -> dict[str, dict[str, object]]:
    found = {
        "failures of the server": answers.failures,
        "errors in its log": server.log.troubles,
        "not ready": [] if server.is_ready else ["/ready"],
        "another server": [] if after.server == before.server else [str(after.server)],
        "another worker": [] if after.worker == before.worker else [str(after.worker)],
        "files left open": [str(after.open_files)]
        if after.open_files > before.open_files + MORE_FILES
        else [],
    }
    return {what: named(which) for what, which in found.items() if which}
