"""The server under load, on the embedded model: `python -m hyvideo_rt.bench.server_load`.

Overhead: what a client waits for one video, created and followed to its end, beside the bare pipeline in this
process and beside the stages that the server's worker reports. Burst: many creates against a small queue; how
many are accepted, how fast the rest is refused, and that every accepted one ends once.
"""

import argparse
import asyncio
import collections
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import torch

from hyvideo_rt.bench import limits
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.metrics_text import bound_below, total
from hyvideo_rt.bench.networks import embedded_flops
from hyvideo_rt.bench.server_process import running_server
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.pipeline import Pipeline, Precision
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.video import save_mp4
from hyvideo_rt.weights.checkpoint import Checkpoint

PROMPT, STEPS = "a red circle moves right", 20
CPU, BUCKET = torch.device("cpu"), Bucket(64, 64, 17)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=30, help="for the overhead, one after the other")
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
    with tempfile.TemporaryDirectory() as folder:
        bare = bare_seconds(args.videos, Path(folder))
        with running_server(Path(folder) / "data", "--max-queue-jobs", str(args.queue)) as server:
            result["overhead"] = overhead(server.url, args.videos, bare)
            result["burst"] = asyncio.run(burst(server.url, args.burst, args.connections))
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def bare_seconds(count: int, folder: Path) -> list[float]:
    """One video after the other, from prompt to file, without a server."""
    pipeline = Pipeline.load(Checkpoint.open(Path(str(files("hyvideo_rt") / "tiny_model"))), CPU)
    seconds = []
    for seed in range(count + 1):
        start = time.perf_counter()
        video = pipeline.generate(PROMPT, SamplingParams(BUCKET, seed, num_inference_steps=STEPS))
        save_mp4(video, folder / "bare.mp4")
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def overhead(url: str, count: int, bare: list[float]) -> dict[str, float]:
    """Seconds that a client waits over those that the worker spent in stages, and over the bare pipeline."""
    waited, added = [], []
    with httpx.Client(base_url=url, timeout=60) as client:
        for seed in range(count):
            start = time.perf_counter()
            body = {"prompt": PROMPT, "seed": seed, "steps": STEPS}
            video = client.post("/v1/videos", json=body).json()
            client.get(f"/v1/videos/{video['id']}/events")  # returns when the video is finished
            waited.append(time.perf_counter() - start)
            done = client.get(f"/v1/videos/{video['id']}").json()
            added.append(waited[-1] - sum(done["stage_seconds"].values()))
    return {
        "videos": count,
        "bare_ms": _ms(bare),
        "through_the_server_ms": _ms(waited),
        "over_the_stages_ms": _ms(added),
        "over_the_stages_p90_ms": round(statistics.quantiles(added, n=10)[-1] * 1000, 2),
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
