"""A job: one video that was asked for, its states, and which of them may follow which."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.sampling import SamplingParams

JOB_ID = re.compile(r"video_[0-9a-f]{32}")


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return not NEXT[self]


NEXT: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset({State.QUEUED, State.COMPLETED, State.FAILED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}


@dataclass(frozen=True)
class VideoRequest:
    """What to make, decided: the seed is drawn and every default filled in."""

    prompt: str
    params: SamplingParams

    def to_json(self) -> dict[str, Any]:
        return {"prompt": self.prompt, **vars(self.params), "bucket": str(self.params.bucket)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "VideoRequest":
        values = dict(content)
        prompt, bucket = values.pop("prompt"), Bucket.parse(values.pop("bucket"))
        return cls(prompt, SamplingParams(bucket=bucket, **values))


@dataclass(frozen=True)
class Fault:
    """Why a job failed: a code for programs and a message for people, without paths or internals."""

    code: str
    message: str


@dataclass(frozen=True)
class Output:
    """The published file: what it weighs, what it hashes to and the seconds each stage took."""

    size_bytes: int
    sha256: str
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Job:
    """A row of the store. Times are seconds since 1970; `seq` grows with every job and is never reused.

    attempts counts claims; while the job runs, `owner` holds it until `lease_until`.
    """

    seq: int
    id: str
    state: State
    request: VideoRequest
    estimate_s: float
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempts: int = 0
    owner: str | None = None
    lease_until: float | None = None
    fault: Fault | None = None
    output: Output | None = None

    @property
    def bucket(self) -> Bucket:
        return self.request.params.bucket


def new_job_id() -> str:
    return f"video_{secrets.token_hex(16)}"


def is_job_id(text: str) -> bool:
    return JOB_ID.fullmatch(text) is not None
