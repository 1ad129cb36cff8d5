"""Settings, requests and a service whose worker is `stub_worker.py`, for tests that need no real video."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.server.jobs import Job, State, VideoRequest
from hyvideo_rt.server.service import Service
from hyvideo_rt.server.settings import Limits, Settings, WorkerSpec
from hyvideo_rt.video import Video, save_mp4

SQUARE, WIDE = Bucket(64, 64, 17), Bucket(64, 96, 17)
KEY = "a-key-for-tests-only"
AUTH = {"Authorization": f"Bearer {KEY}"}
QUICK = Limits(
    watchdog_floor_s=1,
    heartbeat_s=1,
    lease_s=3,
    max_backoff_s=0.2,
    start_s=20,
    drain_s=5,
    min_free_bytes=0,
    sweep_every_s=3600,
)


def request_for(prompt: str = "a cat", bucket: Bucket = SQUARE, seed: int = 1) -> VideoRequest:
    return VideoRequest(prompt, SamplingParams(bucket, seed, num_inference_steps=4))


def job_of(seq: int, bucket: Bucket = SQUARE, created_at: float = 0.0, estimate_s: float = 1.0) -> Job:
    return Job(seq, f"video_{seq:032x}", State.QUEUED, request_for(bucket=bucket), estimate_s, created_at)


def stub_settings(folder: Path, *words: str, limits: Limits = QUICK, keys: tuple[str, ...] = ()) -> Settings:
    """The folder gets the jobs in `data` and the stub's traces in `stub`."""
    (folder / "stub").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(mode=0o700, exist_ok=True)
    stub = str(Path(__file__).parent / "stub_worker.py")
    command = (sys.executable, stub, str(folder / "stub"), *words)
    return Settings(
        folder / "data", "tiny", MODELS["tiny"], (WorkerSpec("cpu", command),), api_keys=keys, limits=limits
    )


def film(folder: Path) -> Path:
    """17 frames of the size that all jobs ask for."""
    path = folder / "film.mp4"
    frames = np.arange(17 * 64 * 64 * 3).reshape(17, 64, 64, 3) % 251
    save_mp4(Video(frames.astype(np.uint8)), path)
    return path


@contextlib.contextmanager
def stub_service(folder: Path, *words: str, **limits: float) -> Iterator[Service]:
    settings = stub_settings(folder, *words, limits=replace(QUICK, **limits))  # type: ignore[arg-type]
    service = Service(settings)
    try:
        yield service
    finally:
        service.close()


def wait_for(condition: Callable[[], object], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def wait_warm(service: Service) -> None:
    wait_for(lambda: service.troubles() == [])


def ended(service: Service, job_id: str) -> Job:
    def final() -> bool:
        job = service.store.get(job_id)
        return job is None or job.state.is_final

    wait_for(final)
    job = service.store.get(job_id)
    assert job
    return job


def traces(folder: Path, start: str) -> list[str]:
    """What the stub has left: names of files that start so."""
    return sorted(path.name for path in (folder / "stub").glob(f"{start}*"))
