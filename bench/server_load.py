"""The server under load, on the embedded model: `python -m hyvideo_rt.bench.server_load`.

Overhead: what a client waits for one video, created and followed to its end or asked for in one request,
against the bare pipeline, turn by turn. Two processes on the same weights differ by some per cent all their
life, so several fresh servers each race a fresh process of the pipeline. Burst: many creates against a small
queue; how many are accepted, how fast the rest is refused, and that every accepted one ends once.
"""

import argparse
import asyncio
import collections
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from email.message import Message
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import torch

from hyvideo_rt.bench import limits
from hyvideo_rt.bench.apart import apart
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.metrics_text import bound_below, total
from hyvideo_rt.bench.networks import embedded_flops
from hyvideo_rt.bench.server_process import running_server
from hyvideo_rt.bench.timing import Ratio, Timing, race
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.pipeline import Pipeline, Precision
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.video import save_mp4

PROMPT, STEPS = "a red circle moves right", 20
CPU, BUCKET = torch.device("cpu"), Bucket(64, 64, 17)
WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15, help="of a server and a pipeline, one after another")
    parser.add_argument("--videos", type=int, default=9, help="that each of a pair makes in each way")
    parser.add_argument("--burst", type=int, default=1000, help="creates at once")
    parser.add_argument("--connections", type=int, default=16, help="that ask at the same time")
    parser.add_argument("--queue", type=int, default=50, help="jobs that may wait in the burst")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    workload = Workload("tiny", [str(BUCKET)], STEPS, str(Precision.default(CPU)), ["eager"])
    result: dict[str, object] = {
        "conditions": conditions(CPU, workload),
        "limits": asdict(limits.measure(CPU)),
        "flops": embedded_flops(PROMPT, SamplingParams(BUCKET, seed=0, num_inference_steps=STEPS)),
    }
    result["overhead"] = overhead(args.pairs, args.videos)
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


def overhead(pairs: int, videos: int) -> dict[str, Any]:
    """One video from prompt to file by the pipeline alone and through the server in both ways.

    Of each pair the medians; timings and ratios are of these. added: a client's seconds over those that the
    worker's stages took.
    """
    medians: dict[str, list[float]] = collections.defaultdict(list)
    added: dict[str, list[float]] = collections.defaultdict(list)
    for pair in range(pairs):
        raced, over = apart(race_pair, videos, bool(pair % 2))
        for of, all_ in ((raced, medians), (over, added)):
            for name, seconds in of.items():
                all_[name].append(statistics.median(seconds))
    return {
        **{name: asdict(Timing.of(seconds)) for name, seconds in medians.items()},
        "videos_of_each": videos,
        "ratios": {name: asdict(Ratio.of(medians[name], medians["bare"])) for name in added},
        "added_ms": {name: _ms(seconds) for name, seconds in added.items()},
    }


def race_pair(videos: int, backwards: bool) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of the pipeline in this process and of a new server, and what of these is not in its stages.

    backwards: the other way round, since whoever comes after another process finds its caches cold.
    """
    seeds = itertools.count()
    added: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, running_server(Path(name) / "data") as server:
        pipeline, visitor, folder = Pipeline.load(embedded_tiny(), CPU), Visitor(server.url), Path(name)

        def bare() -> None:
            params = SamplingParams(BUCKET, next(seeds), num_inference_steps=STEPS)
            save_mp4(pipeline.generate(PROMPT, params), folder / "bare.mp4")

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
