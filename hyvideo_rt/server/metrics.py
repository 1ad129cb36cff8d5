"""What Prometheus reads. Labels are names of sizes, stages and outcomes: never a prompt, an id or a path."""

import math
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hyvideo_rt import __version__
from hyvideo_rt.buckets import PRESETS, Bucket
from hyvideo_rt.errors import HyVideoError

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)
FINE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)
REFUSALS = (
    "queue_full",
    "draining",
    "worker_broken",
    "worker_not_ready",
    "disk_full",
    "database_busy",
    "database_damaged",
    "database_error",
)
_NAMES = {bucket: name for name, bucket in PRESETS.items()}


class Metrics:
    """One registry per server. Seconds are those of the host's clock."""

    def __init__(self, devices: Sequence[str] = ()) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter("hv_requests", "Jobs that ended", ["status", "preset"], registry=r)
        self.refused = Counter("hv_refused", "Requests for videos not accepted", ["code"], registry=r)
        self.duration = Histogram(
            "hv_request_duration_seconds", "Created to ended", ["status"], buckets=SECONDS, registry=r
        )
        self.waited = Histogram("hv_queue_wait_seconds", "Created to started", buckets=SECONDS, registry=r)
        self.stage = Histogram(
            "hv_stage_duration_seconds", "Of one video", ["stage"], buckets=SECONDS, registry=r
        )
        self.step = Histogram(
            "hv_denoise_step_seconds", "Mean of one video", ["preset"], buckets=FINE_SECONDS, registry=r
        )
        self.cancelled = Histogram(
            "hv_cancel_latency_seconds", "Cancelled to device free", buckets=FINE_SECONDS, registry=r
        )
        self.numerical = Counter("hv_numerical_errors", "Videos that were NaN or flat", registry=r)
        self.swaps = Counter("hv_engine_loads", "Sizes whose engines were loaded", ["preset"], registry=r)
        self.peak = Gauge("hv_gpu_memory_peak_bytes", "Of the last video", ["device"], registry=r)
        self.up = Gauge("hv_worker_up", "1 if a worker is warm", ["device"], registry=r)
        self.restarts = Counter("hv_worker_restarts", "Starts after the first", ["device"], registry=r)
        self.http = Counter("hv_http_requests", "Answers", ["method", "route", "status"], registry=r)
        self.http_seconds = Histogram(
            "hv_http_duration_seconds", "To the last byte", ["route"], buckets=FINE_SECONDS, registry=r
        )
        build = Gauge("hv_build_info", "Always 1", ["version"], registry=r)
        build.labels(__version__).set(1)
        for device in devices:  # series that begin with their first event hide it from `increase()`
            self.up.labels(device).set(0)
            self.restarts.labels(device)
        for code in REFUSALS:
            self.refused.labels(code)

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        gauge = Gauge("hv_ready", "1 if a request sent now would be made", registry=self.registry)
        gauge.set_function(lambda: float(ready()))

    def watch_queue(self, depth: Callable[[], float], seconds: Callable[[], float]) -> None:
        """Both are asked when the metrics are read; NaN where nobody can say."""
        gauge = Gauge("hv_queue_depth", "Jobs that wait", registry=self.registry)
        gauge.set_function(lambda: _or_nan(depth))
        gauge = Gauge("hv_queue_gpu_seconds", "Estimated, of those that wait", registry=self.registry)
        gauge.set_function(lambda: _or_nan(seconds))

    def text(self) -> bytes:
        return generate_latest(self.registry)


def _or_nan(read: Callable[[], float]) -> float:
    """A database that fails must not hide the other metrics."""
    try:
        return read()
    except HyVideoError:
        return math.nan


def label_of(bucket: Bucket) -> str:
    """A preset's name; all other sizes share one, so that clients cannot make labels."""
    return _NAMES.get(bucket, "other")
