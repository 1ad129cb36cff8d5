"""What clients of a server do all day. Each visit leaves nothing behind, and knows what it is answered."""

import collections
import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from hyvideo_rt.bench.stress_jobs import FINAL, Content

LANES, STEPS = 3, 8
PAUSE_S, POLL_S = 0.3, 0.1  # a pause is drawn up to so long
PRESETS = ("tiny-square", "tiny-square", "tiny-landscape", "tiny-portrait", "tiny-square-long")
WORDS = (
    "a",
    "red",
    "blue",
    "circle",
    "square",
    "moves",
    "left",
    "right",
    "on",
    "white",
    "Straße",
    "円",
    "🎬",
    "\n",
)
# A prompt that names no thing may have a video without one, which is refused as flat: "a right" had.
THING = "a red circle moves right on a white background"
NOBODY = "video_" + "0" * 32


class Unexpected(Exception):
    """An answer that is not what this visit is about."""


class Visitor:
    """One client. visits and answers: how many of each; unexpected: what else happened."""

    def __init__(self, url: str, seed: int) -> None:
        self.http, self.rng = httpx.Client(base_url=url, timeout=120), random.Random(seed)
        self.visits: collections.Counter[str] = collections.Counter()
        self.answers: collections.Counter[int] = collections.Counter()
        self.unexpected: list[str] = []

    def visit(self) -> None:
        act = self.rng.choice(VISITS)
        self.visits[act.__name__] += 1
        try:
            act(self)
        except Exception as error:
            self.unexpected.append(f"{act.__name__}: {type(error).__name__}: {error}")
        time.sleep(self.rng.uniform(0, PAUSE_S))

    def ask(self, method: str, path: str, status: int = 200, **words: Any) -> httpx.Response:
        answer = self.http.request(method, path, **words)
        self.answers[answer.status_code] += 1
        if answer.status_code != status:
            raise Unexpected(f"{answer.status_code} for {status} to {method} {path}: {answer.text[:200]}")
        return answer

    def wish(self) -> dict[str, Any]:
        prompt = " ".join((THING, *self.rng.choices(WORDS, k=self.rng.randint(0, 30))))
        seed, steps = self.rng.randrange(1 << 32), self.rng.randint(1, STEPS)
        return {"prompt": prompt, "preset": self.rng.choice(PRESETS), "seed": seed, "steps": steps}

    def create(self) -> str:
        return str(self.ask("POST", "/v1/videos", json=self.wish()).json()["id"])

    def poll(self, video_id: str) -> dict[str, Any]:
        while True:
            record: dict[str, Any] = self.ask("GET", f"/v1/videos/{video_id}").json()
            if record["status"] in FINAL:
                return record
            time.sleep(POLL_S)

    def made(self, video_id: str) -> dict[str, Any]:
        record = self.poll(video_id)
        if record["status"] != "completed":
            raise Unexpected(f"{video_id} is {record['status']}: {record['error']}")
        return record

    def delete(self, video_id: str) -> None:
        self.ask("DELETE", f"/v1/videos/{video_id}")
        self.ask("GET", f"/v1/videos/{video_id}", 404)


def followed(visitor: Visitor) -> None:
    """Its events to the end, then the whole file."""
    video_id = visitor.create()
    events = visitor.ask("GET", f"/v1/videos/{video_id}/events").text
    record = visitor.made(video_id)
    content = Content.of(visitor.ask("GET", f"/v1/videos/{video_id}/content").content)
    if content != Content(record["size_bytes"], record["sha256"], record["num_frames"]):
        raise Unexpected(f"{content} for {record}")
    if record["sha256"] not in events:
        raise Unexpected(f"the last event is not of the end: {events[-200:]}")
    visitor.delete(video_id)


def polled(visitor: Visitor) -> None:
    """Made from a form; its pictures and parts of its file."""
    form = {name: (None, str(value)) for name, value in visitor.wish().items()}
    video_id = str(visitor.ask("POST", "/v1/videos", files=form).json()["id"])
    record, content = visitor.made(video_id), f"/v1/videos/{video_id}/content"
    for variant in ("thumbnail", "spritesheet"):
        visitor.ask("GET", content, params={"variant": variant})
    middle = record["size_bytes"] // 2
    parts = (f"bytes=0-{middle - 1}", f"bytes={middle}-")
    data = b"".join(visitor.ask("GET", content, 206, headers={"Range": part}).content for part in parts)
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise Unexpected("two halves are not the whole")
    visitor.ask("GET", content, 416, headers={"Range": f"bytes={record['size_bytes']}-"})
    visitor.ask("GET", content, 304, headers={"If-None-Match": f'"{record["sha256"]}"'})
    visitor.ask("HEAD", content)
    visitor.delete(video_id)


def awaited(visitor: Visitor) -> None:
    answer = visitor.ask("POST", "/v1/videos/sync", json=visitor.wish())
    visitor.delete(answer.headers["X-Video-Id"])


def hung_up(visitor: Visitor) -> None:
    """Its key finds out which video that was."""
    wish = visitor.wish() | {"steps": 100}
    key = {"Idempotency-Key": f"hung up {visitor.rng.random()}"}
    try:
        visitor.ask("POST", "/v1/videos/sync", json=wish, headers=key, timeout=0.2)
    except httpx.ReadTimeout:
        pass
    else:
        raise Unexpected("100 steps in no time")
    visitor.delete(visitor.ask("POST", "/v1/videos", json=wish, headers=key).json()["id"])


def cancelled(visitor: Visitor) -> None:
    video_id = visitor.create()
    time.sleep(visitor.rng.uniform(0, 1))
    visitor.ask("POST", f"/v1/videos/{video_id}/cancel")
    if visitor.poll(video_id)["status"] == "failed":
        visitor.ask("GET", f"/v1/videos/{video_id}/content", 409)
    visitor.delete(video_id)


def deleted(visitor: Visitor) -> None:
    video_id = visitor.create()
    time.sleep(visitor.rng.uniform(0, 1))
    visitor.delete(video_id)


def mistaken(visitor: Visitor) -> None:
    """Every error that a client can make by itself."""
    create = "/v1/videos"
    visitor.ask("POST", create, 400, content=b"{", headers={"Content-Type": "application/json"})
    visitor.ask("POST", create, 400, json=visitor.wish() | {"steps": -1})
    visitor.ask("POST", create, 400, json=visitor.wish() | {"colour": "red"})
    visitor.ask("POST", create, 400, json={"prompt": "a", "size": "65x64"})
    with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # it may be cut off while it still sends
        visitor.ask("POST", create, 413, content=b" " * (2 << 20))
    visitor.ask("POST", create, 415, content=b"a red circle")
    visitor.ask("PUT", create, 405)
    visitor.ask("GET", f"{create}?limit=0", 400)
    visitor.ask("POST", f"{create}/{NOBODY}/cancel", 404)
    for path in ("/nowhere", f"{create}/{NOBODY}", f"{create}/{NOBODY}/content", f"{create}/{NOBODY}/events"):
        visitor.ask("GET", path, 404)


def looked_around(visitor: Visitor) -> None:
    for path in ("/live", "/ready", "/health", "/metrics", "/version", "/v1/models", "/v1/models/tiny", "/"):
        visitor.ask("GET", path)
    for order in ("asc", "desc"):
        page = visitor.ask("GET", "/v1/videos", params={"limit": "2", "order": order}).json()
        if page["last_id"]:  # another visitor may delete it now
            visitor.http.get("/v1/videos", params={"after": page["last_id"]})


VISITS: tuple[Callable[[Visitor], None], ...] = (
    followed,
    polled,
    awaited,
    hung_up,
    cancelled,
    deleted,
    mistaken,
    looked_around,
)


class Visitors:
    """LANES of them at a time, until told to leave."""

    def __init__(self, url: str, seed: int) -> None:
        self.visitors = [Visitor(url, seed * LANES + i) for i in range(LANES)]
        self._over, self._pool = threading.Event(), ThreadPoolExecutor(LANES)
        for visitor in self.visitors:
            self._pool.submit(self._live, visitor)

    def leave(self) -> None:
        """Returns when each has ended its visit."""
        self._over.set()
        self._pool.shutdown()

    @property
    def visits(self) -> dict[str, int]:
        return dict(sum((visitor.visits for visitor in self.visitors), collections.Counter()))

    @property
    def answers(self) -> dict[int, int]:
        return dict(
            sorted(sum((visitor.answers for visitor in self.visitors), collections.Counter()).items())
        )

    @property
    def unexpected(self) -> list[str]:
        return [what for visitor in self.visitors for what in visitor.unexpected]

    def _live(self, visitor: Visitor) -> None:
        while not self._over.is_set():
            visitor.visit()
        visitor.http.close()
