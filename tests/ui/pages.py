"""Processes of ours for tests of the page, and answers of the API as they might come."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-key-for-tests-of-the-page"
TIMEOUT_S = 90


@contextlib.contextmanager
def process(log: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """`hyvideo-rt` with these arguments, until the block ends."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-m", "hyvideo_rt.cli.main", *arguments]
    with log.open("wb") as out:
        running = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=out)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def wait_for_page(url: str, log: Path, **how: Any) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, **how).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"{url} did not come up: {log.read_text()}")


def video_json(video_id: str, status: str, **fields: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("completed_at", "queue_position", "seconds_left", "stage_seconds", "size_bytes"))
    texts = {"id": video_id, "status": status, "prompt": "x", "size": "64x64", "negative_prompt": ""}
    numbers = {"progress": 0, "num_frames": 17, "fps": 24, "steps": 4, "seed": 1, "created_at": 0}
    scales = {"guidance_scale": 6.0, "true_cfg_scale": 1.0, "flow_shift": 7.0}
    return {
        **nothing,
        **texts,
        **numbers,
        **scales,
        "stage": None,
        "error": None,
        "of_a_newer_server": 1,
        **fields,
    }
