"""Everything the server was told at its start, checked."""

import ipaddress
from dataclasses import dataclass, fields
from pathlib import Path

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import ModelConfig, sampling_defaults
from hyvideo_rt.errors import InvalidRequest

GIB = 1024**3
MIN_KEY_LENGTH = 16
MAY_BE_ZERO = {"overtake_s", "min_free_bytes", "max_backoff_s", "drain_s"}


@dataclass(frozen=True)
class WorkerSpec:
    """One worker process: the device it is for and the command that starts it."""

    device: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """What is accepted, how long things may take and what is kept.

    A worker is hung when it says nothing for heartbeat_s, or when one step or tile takes watchdog_factor
    times what it should and more than watchdog_floor_s. breaker_deaths in a row, each while it loaded or
    within fast_death_s of being warm, and the server is not ready until one lives. A job may be overtaken by
    those whose engines are loaded until it has waited overtake_s. Jobs in the queue count by their estimated
    seconds.
    """

    queue_jobs: int = 100
    queue_s: float = 4 * 3600
    job_s: float = 2 * 3600
    overtake_s: float = 30
    attempts: int = 2
    lease_s: float = 30
    start_s: float = 1800
    heartbeat_s: float = 60
    watchdog_floor_s: float = 120
    watchdog_factor: float = 5
    fast_death_s: float = 60
    breaker_deaths: int = 3
    max_backoff_s: float = 60
    drain_s: float = 600
    sync_s: float = 3600
    retention_s: float = 7 * 24 * 3600
    min_free_bytes: int = GIB
    sweep_every_s: float = 60
    body_bytes: int = 1 << 20
    body_s: float = 60

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in MAY_BE_ZERO else 1e-3
            if not least <= value < float("inf"):
                raise InvalidRequest(f"got {field.name} {value}; expected a finite number above 0")


@dataclass(frozen=True)
class Settings:
    """Raises InvalidRequest for an address that others reach without a key.

    An empty `api_keys` lets everyone in who can reach the address; `warm` are the sizes that are ready when
    `/ready` says so. `page` is the command that starts the web page's process.
    """

    data_dir: Path
    model: str
    config: ModelConfig
    workers: tuple[WorkerSpec, ...]
    warm: tuple[Bucket, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    limits: Limits = Limits()
    page: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise InvalidRequest(f"got --port {self.port}; expected 0 to 65535")
        if not self.api_keys and not is_loopback(self.host):
            raise InvalidRequest(
                f"got --host {self.host} without an API key; expected one where others can reach the server\n"
                f"  set HYVIDEO_API_KEY or give --api-key-file, or take --host 127.0.0.1"
            )
        for key in self.api_keys:
            if len(key) < MIN_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
                raise InvalidRequest(
                    f"got a key of {len(key)} characters; expected {MIN_KEY_LENGTH} or more, of ASCII; no "
                    f"spaces\n  python -c 'import secrets; print(secrets.token_urlsafe(32))'"
                )

    @property
    def default_bucket(self) -> Bucket:
        return sampling_defaults(self.config)[0]

    @property
    def default_steps(self) -> int:
        return sampling_defaults(self.config)[1]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name that is not `localhost` could be anyone's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
