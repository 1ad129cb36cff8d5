"""Cancelling and deleting videos at random moments of their lives, several at a time.

Every fourth video is left alone; how long those live lately is what the others' moments are drawn from, from
their creation to a fifth of a life behind their end. How long the device takes to be free again is in the
server's own histogram.
"""

import collections
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from hyvideo_rt.bench.metrics_text import bound_below, total
from hyvideo_rt.bench.server_process import running_server
from hyvideo_rt.bench.stress_aftermath import aftermath, named
from hyvideo_rt.bench.stress_client import PROMPT, Client
from hyvideo_rt.bench.stress_jobs import Tale

LANES, STEPS = 3, 20
LEFT_ALONE = 4  # every so manieth
LATELY = 15  # lives
FAR = 1.2  # lives
LATENCY = "hv_cancel_latency_seconds"


def cancels(count: int, seed: int) -> dict[str, Any]:
    """met: where videos were just before they were cancelled. violations: promises that were broken."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "data") as server:
        client = Client(server.url)
        before = client.video_of(seed)
        lives = Lives(server.url, seed)
        lives.begin(count * LEFT_ALONE // (LEFT_ALONE - 1) + LANES + 1)
        latency = _latency(server.url)
        after = client.video_of(seed)
        client.http.close()
        result = aftermath(server, lives.tales)
    if after != before:
        result["violations"]["another video afterwards"] = named([f"seed {seed}"])
    return {
        "cancels": lives.met.total(),
        "left_alone": len(lives.tales) - lives.met.total(),
        "seconds": round(time.monotonic() - start),
        "life_s": round(statistics.median(lives.lasted_s), 3),
        "met": dict(lives.met.most_common()),
        "latency": latency,
        **result,
    }


class Lives:
    """tales: of every video; met: stages in which those that were cut short were; lasted_s: of the others."""

    def __init__(self, url: str, seed: int) -> None:
        self.tales: list[Tale] = []
        self.met: collections.Counter[str] = collections.Counter()
        self.lasted_s: list[float] = []
        self._url, self._seed = url, seed

    def begin(self, count: int) -> None:
        """So many, LANES at a time; returns when all were cut short or have ended."""
        with ThreadPoolExecutor(LANES) as pool:
            met = pool.map(lambda lane: self._lane(range(lane, count, LANES)), range(LANES))
        for stages in met:
            self.met.update(stages)

    def _lane(self, numbers: Sequence[int]) -> list[str]:
        client, met = Client(self._url), []
        for n in numbers:
            rng = random.Random(f"{self._seed}-{n}")
            tale = Tale(f"life-{n}", {"prompt": PROMPT, "seed": rng.randrange(8), "steps": STEPS})
            client.create(tale)
            self.tales.append(tale)
            if n % LEFT_ALONE == 0 or not self.lasted_s:
                self._leave_alone(client, tale)
            else:
                life_s = statistics.median(self.lasted_s[-LATELY:])
                met.append(_cut_short(client, tale, rng, rng.uniform(0, FAR * life_s)))
        client.http.close()
        return met

    def _leave_alone(self, client: Client, tale: Tale) -> None:
        start = time.monotonic()
        client.ask("GET", f"/v1/videos/{tale.id}/events")  # returns when it has ended
        self.lasted_s.append(time.monotonic() - start)


def _cut_short(client: Client, tale: Tale, rng: random.Random, after_s: float) -> str:
    """In which stage it was just before."""
    time.sleep(after_s)
    record = client.ask("GET", f"/v1/videos/{tale.id}")[0].raise_for_status().json()
    if rng.random() < 0.5:
        client.delete(tale)
    else:
        client.cancel(tale)
    return (record["stage"] or {}).get("name") or str(record["status"])


def _latency(url: str) -> dict[str, float]:
    """From the cancel to the device free, of those that had one; bounds are those of the histogram."""
    text = httpx.get(f"{url}/metrics").text
    count = total(text, f"{LATENCY}_count")
    return {
        "count": count,
        "mean_ms": round(1000 * total(text, f"{LATENCY}_sum") / max(count, 1), 1),
        "half_below_s": bound_below(text, LATENCY, 0.5),
        "p99_below_s": bound_below(text, LATENCY, 0.99),
        "all_below_s": bound_below(text, LATENCY, 1),
    }
