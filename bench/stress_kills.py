"""`kill -9` of the server and of its worker at random moments, while clients create, cancel and delete.

Half of the kills hit the server, which is then started again on the same folder and port, some of them while
it still starts. The others hit the worker, some of them twice in a row: a job's second attempt is lost, too.
At the end the server is stopped in order, started again, and every promise about every job is checked.
"""

import os
import random
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hyvideo_rt.bench.server_process import Child, ServerProcess, running_server
from hyvideo_rt.bench.stress_aftermath import aftermath, named
from hyvideo_rt.bench.stress_client import PROMPT, Client
from hyvideo_rt.bench.stress_jobs import Tale

LANES, STEPS = 4, 4
MOMENT_S = 1.2  # a kill comes within so long of a server that is ready, or of one that starts
WHILE_STARTING, TWICE = 0.15, 0.2  # of the kills of the server, of those of the worker
SETTLE_S = 300


class Traffic:
    """Clients that ask for short videos, one after the other, until told to stop. tales: all they know."""

    def __init__(self, url: str, seed: int) -> None:
        self.tales: list[Tale] = []
        self._over, self._url = threading.Event(), url
        self._pool = ThreadPoolExecutor(LANES)
        self._lanes: list[Future[int]] = [
            self._pool.submit(self._live, seed * LANES + i) for i in range(LANES)
        ]

    def end(self) -> int:
        """Every job that was begun is seen to its end. How many requests were not answered."""
        self._over.set()
        self._pool.shutdown()
        return sum(lane.result() for lane in self._lanes)

    def _live(self, seed: int) -> int:
        rng, client, count = random.Random(seed), Client(self._url), 0
        while not self._over.is_set():
            body = {"prompt": PROMPT, "seed": rng.randrange(8), "steps": rng.randint(2, STEPS)}
            tale = Tale(f"key-{seed}-{count}", body)
            count += 1
            client.create(tale)
            self.tales.append(tale)
            _one_life(client, tale, rng)
        client.http.close()
        return client.retries


def _one_life(client: Client, tale: Tale, rng: random.Random) -> None:
    """Of a job: most are waited for; some cancelled or deleted on their way, or asked for twice."""
    fate = rng.random()
    if fate < 0.45:
        time.sleep(rng.uniform(0, 1))
    if fate < 0.15:
        client.cancel(tale)
    elif fate < 0.3:
        client.delete(tale)
        return
    elif fate < 0.45:
        client.create(tale)
    client.wait_end(tale)
    if rng.random() < 0.1:
        client.delete(tale)


class Killer:
    """kills: how many of each kind so far."""

    def __init__(self, server: ServerProcess, rng: random.Random) -> None:
        self._server, self._rng = server, rng
        self.kills = {"server": 0, "server_while_starting": 0, "worker": 0, "worker_again": 0}
        self.workers: set[Child] = set()
        self._completed = 0  # videos, when a worker was killed last

    def kill(self, count: int) -> None:
        """So many, half of each; in an order that is drawn, on a server that is ready before and after."""
        victims = ["server", "worker"] * (count // 2 + 1)
        victims = victims[:count]
        self._rng.shuffle(victims)
        for n, victim in enumerate(victims):
            if n % 10 == 0:
                print(f"{n} of {count} kills", file=sys.stderr, flush=True)
            if victim == "server":
                self._kill_server()
            else:
                self._kill_worker()
        self._server.wait_ready()

    def _kill_server(self) -> None:
        starting = self._rng.random() < WHILE_STARTING
        if not starting:
            self._server.wait_ready()
        self._sleep(2 * MOMENT_S if starting else MOMENT_S)
        self._note_worker()
        self._server.kill()
        self.kills["server_while_starting" if starting else "server"] += 1
        self._server.start()

    def _kill_worker(self) -> None:
        """Between two a video is made, or else the server waits longer and longer before it starts one."""
        self._server.wait_ready()
        again = self._rng.random() < TWICE
        if not again:
            self._wait_for_a_video()
        self._sleep(0.3 if again else MOMENT_S)
        while (worker := self._note_worker()) is None:
            time.sleep(0.02)
        self._completed = self._server.log.completed
        os.kill(worker.pid, signal.SIGKILL)
        self.kills["worker_again" if again else "worker"] += 1
        _wait_gone({worker})

    def _wait_for_a_video(self) -> None:
        deadline = time.monotonic() + SETTLE_S
        while self._server.log.completed == self._completed and time.monotonic() < deadline:
            time.sleep(0.02)

    def _sleep(self, most_s: float) -> None:
        time.sleep(self._rng.uniform(0, most_s))

    def _note_worker(self) -> Child | None:
        worker = self._server.worker
        self.workers |= {worker} if worker else set()
        return worker


def kills(count: int, seed: int) -> dict[str, Any]:
    """violations: promises that were broken, with the first of who broke them."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "data") as server:
        traffic, killer = Traffic(server.url, seed), Killer(server, random.Random(seed))
        try:
            killer.kill(count)
        finally:
            unanswered = traffic.end()
        result = aftermath(server, traffic.tales)
    _wait_gone(killer.workers)
    left = [str(worker.pid) for worker in killer.workers if worker.is_alive]
    if left:
        result["violations"]["worker without a server"] = named(left)
    return {
        "kills": killer.kills | {"in_all": sum(killer.kills.values())},
        "seconds": round(time.monotonic() - start),
        "requests_unanswered": unanswered,
        **result,
    }


def _wait_gone(processes: set[Child]) -> None:
    deadline = time.monotonic() + SETTLE_S
    while any(process.is_alive for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)
