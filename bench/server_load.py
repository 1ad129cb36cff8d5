"""The server under load, on the embedded model: `python -m hyvideo_rt.bench.server_load`.

Overhead: what a client waits for one video, created and followed to its end or asked for in one request,
against the bare pipeline in this process, turn by turn. Burst: many creates against a small queue; how many
are accepted, how fast the rest is refused, and that every accepted one ends once.
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
from pathlib import Path
from typing import Any

import httpx
import torch

from hyvideo_rt.bench import limits
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=30, help="rounds of the overhead")
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
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "data", "--max-queue-jobs", str(args.queue)) as server,
    ):
        result["overhead"] = overhead(server.url, args.videos, Path(folder))
        result["burst"] = asyncio.run(burst(server.url, args.burst, args.connections))
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def overhead(url: str, rounds: int, folder: Path) -> dict[str, Any]:
    """One video from prompt to file by the pipeline in this process, and through the server in both ways.

    Turn by turn. added: a client's seconds over those that the worker's stages took.
    """
    pipeline = Pipeline.load(embedded_tiny(), CPU)
    added: dict[str, list[float]] = {"followed": [], "sync": []}
    seeds = itertools.count()

    def bare() -> None:
        params = SamplingParams(BUCKET, next(seeds), num_inference_steps=STEPS)
        save_mp4(pipeline.generate(PROMPT, params), folder / "bare.mp4")

    with httpx.Client(base_url=url, timeout=60) as client:

        def through(name: str, ask: Callable[[dict[str, Any]], str]) -> None:
            start = time.perf_counter()
            video_id = ask({"prompt": PROMPT, "seed": next(seeds), "steps": STEPS})
            seconds = time.perf_counter() - start
            stages = client.get(f"/v1/videos/{video_id}").json()["stage_seconds"]
            added[name].append(seconds - sum(stages.values()))

        def follow(body: dict[str, Any]) -> str:
            video_id = str(client.post("/v1/videos", json=body).json()["id"])
            client.get(f"/v1/videos/{video_id}/events")  # returns when the video is finished
            return video_id

        def wait(body: dict[str, Any]) -> str:
            return client.post("/v1/videos/sync", json=body).headers["X-Video-Id"]

        contestants = {
            "bare": bare,
            "followed": lambda: through("followed", follow),
            "sync": lambda: through("sync", wait),
        }
        seconds = race(contestants, rounds, warm_up=2)
    timings = {name: asdict(Timing.of(each)) for name, each in seconds.items()}
    return {
        **timings,
        "ratios": {name: asdict(Ratio.of(seconds[name], seconds["bare"])) for name in added},
        "added_ms": {name: _ms(each) for name, each in added.items()},
    }


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
