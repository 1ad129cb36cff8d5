"""The server under load, on the embedded model: `python -m hyvideo_rt.bench.server_load`.

Overhead: what a client waits for one video, created and followed to its end or asked for in one request,
against the bare pipeline in the same worker, turn by turn, for several fresh servers. Burst: many creates
against a small queue; how many are accepted, how fast the rest is refused, and that every accepted one ends
once.
"""

import argparse
import asyncio
import collections
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from email.message import Message
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import torch

from hyvideo_rt.bench import limits
from hyvideo_rt.bench.bare_server import running_bare_server
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.metrics_text import bound_below, total
from hyvideo_rt.bench.networks import embedded_flops
from hyvideo_rt.bench.server_process import running_server
from hyvideo_rt.bench.timing import Ratio, Timing, race
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.pipeline import Precision
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.server.jobs import VideoRequest

PROMPT, STEPS = "a red circle moves right", 20
CPU, BUCKET = torch.device("cpu"), Bucket(64, 64, 17)
WARM_UP = 2
# Seconds of each way, and of a client's what lies outside of the worker's stages.
Race = tuple[dict[str, list[float]], dict[str, list[float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=8, help="one after another (8)")
    parser.add_argument("--videos", type=int, default=15, help="that each of them makes in each way (15)")
    parser.add_argument("--burst", type=int, default=1000, help="creates at once")
    parser.add_argument("--connections", type=int, default=16, help="that ask at the same time")
    parser.add_argument("--queue", type=int, default=50, help="jobs that may wait in the burst")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.burst < 2 * args.queue:
        parser.error(
            f"got --burst {args.burst}; expected twice --queue {args.queue} or more, so that some are refused"
        )
    workload = Workload("tiny", [str(BUCKET)], STEPS, str(Precision.default(CPU)), ["eager"])
    result: dict[str, object] = {
        "conditions": conditions(CPU, workload),
        "limits": asdict(limits.measure(CPU)),
        "flops": embedded_flops(PROMPT, SamplingParams(BUCKET, seed=0, num_inference_steps=STEPS)),
    }
    result["overhead"] = overhead(args.servers, args.videos)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "data", "--max-queue-jobs", str(args.queue)) as server,
    ):
        result["burst"] = asyncio.run(burst(server.url, args.burst, args.connections))
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


class Visitor:
    """The plainest client there is: what it takes itself is no fault of the server's."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(url.removeprefix("http://"), timeout=60)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[Message, bytes]:
        """Headers and content. Raises RuntimeError for anything but success."""
        headers = {"Content-Type": "application/json"} if body else {}
        self._connection.request(method, path, json.dumps(body) if body else None, headers)
        with self._connection.getresponse() as answer:
            content = answer.read()
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"{method} {path} was answered with {answer.status}: {content!r}")
        return answer.headers, content

    def follow(self, body: dict[str, Any]) -> str:
        """The id of a video that was created and is finished."""
        video_id = str(json.loads(self.ask("POST", "/v1/videos", body)[1])["id"])
        self.ask("GET", f"/v1/videos/{video_id}/events")  # ends with it
        return video_id

    def wait(self, body: dict[str, Any]) -> str:
        """The id of a video that came as the answer."""
        return self.ask("POST", "/v1/videos/sync", body)[0]["X-Video-Id"]

    def stages_s(self, video_id: str) -> float:
        """What the worker has said that it took."""
        video = json.loads(self.ask("GET", f"/v1/videos/{video_id}")[1])
        return float(sum(video["stage_seconds"].values()))


def overhead(servers: int, videos: int) -> dict[str, Any]:
    """One video from prompt to file by the pipeline alone and through the server in both ways."""
    return summary([race_one(videos, backwards=bool(server % 2)) for server in range(servers)])


def summary(races: Sequence[Race]) -> dict[str, Any]:
    """Timings of all videos. Ratios are of the same in units of what the pipeline alone takes in their worker
    (the median), by which workers differ.
    """
    seconds, units, added = (collections.defaultdict[str, list[float]](list) for _ in range(3))
    for raced, over in races:
        unit_s = statistics.median(raced["bare"])
        for name, each in raced.items():
            seconds[name] += each
            units[name] += [one_s / unit_s for one_s in each]
        for name, each in over.items():
            added[name] += each
    return {
        **{name: asdict(Timing.of(each)) for name, each in seconds.items()},
        "servers": len(races),
        "ratios": {name: asdict(Ratio.of(units[name], units["bare"])) for name in added},
        "added_ms": {name: _ms(each) for name, each in added.items()},
    }


def race_one(videos: int, *, backwards: bool) -> Race:
    """In one new server.

    backwards: the other way round, since a video may be made faster after one than after another.
    """
    seeds = itertools.count()
    bare_s: list[float] = []
    added: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, running_bare_server(Path(folder)) as (server, door):
        visitor = Visitor(server.url)

        def bare() -> None:
            """Its seconds are the worker's: what it takes to ask there is no part of a pipeline."""
            params = SamplingParams(BUCKET, next(seeds), num_inference_steps=STEPS)
            bare_s.append(door.seconds(VideoRequest(PROMPT, params)))

        def through(way: str, make: Callable[[dict[str, Any]], str]) -> None:
            start = time.perf_counter()
            video_id = make({"prompt": PROMPT, "seed": next(seeds), "steps": STEPS})
            seconds = time.perf_counter() - start
            added.setdefault(way, []).append(seconds - visitor.stages_s(video_id))

        contestants = {
            "bare": bare,
            "followed": lambda: through("followed", visitor.follow),
            "sync": lambda: through("sync", visitor.wait),
        }
        order = reversed(contestants) if backwards else contestants
        seconds = race({name: contestants[name] for name in order}, videos, WARM_UP)
    seconds["bare"] = bare_s[WARM_UP:]
    return seconds, {way: each[WARM_UP:] for way, each in added.items()}


async def burst(url: str, count: int, connections: int) -> dict[str, object]:
    """As fast as so many connections can ask; then wait until all is made and count what ended."""
    host, port = url.removeprefix("http://").split(":")
    todo = iter(range(count))
    start = time.perf_counter()
    lanes = await asyncio.gather(*(_lane(host, int(port), todo) for _ in range(connections)))
    took = time.perf_counter() - start
    answers = [answer for lane in lanes for answer in lane]
    statuses = collections.Counter(status for status, _ in answers)
    refused = sorted(seconds for status, seconds in answers if status == 429)
    while _busy(httpx.get(f"{url}/health").json()):
        await asyncio.sleep(0.2)
    text = httpx.get(f"{url}/metrics").text
    return {
        "creates": count,
        "connections": connections,
        "per_second": round(count / took),
        "statuses": dict(statuses),
        "refused_p50_ms": _ms(refused),
        "refused_p99_ms": round(refused[int(0.99 * len(refused))] * 1000, 2),
        "server_p99_below_s": bound_below(text, "hv_http_duration_seconds", 0.99, 'route="/v1/videos"'),
        "completed_in_all": total(text, 'hv_requests_total{preset="tiny-square",status="completed"}'),
    }


async def _lane(host: str, port: int, todo: Iterator[int]) -> list[tuple[int, float]]:
    """One connection, one request after the other: (status, seconds) of each. Bare, not to load the CPU."""
    reader, writer = await asyncio.open_connection(host, port)
    answers = []
    for seed in todo:
        body = json.dumps({"prompt": PROMPT, "seed": seed, "steps": 2}).encode()
        head = f"POST /v1/videos HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        start = time.perf_counter()
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(headers.partition("content-length: ")[2].split("\r\n")[0])
        await reader.readexactly(length)
        answers.append((int(headers.split()[1]), time.perf_counter() - start))
    writer.close()
    return answers


def _busy(health: dict[str, Any]) -> bool:
    return bool(health["queue"]["jobs"]) or any(worker["busy"] for worker in health["workers"])


def _ms(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1000, 2)


if __name__ == "__main__":
    main()
