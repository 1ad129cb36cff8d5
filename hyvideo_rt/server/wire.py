"""Bodies of requests and answers: the OpenAI Videos format, and our own fields beside it.

`size` is WIDTHxHEIGHT there; our buckets are height x width x frames, and `preset` names those.
"""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.pipeline import FPS
from hyvideo_rt.sampling import MAX_SEED, SamplingParams, resolve_seeds
from hyvideo_rt.server.desk import View
from hyvideo_rt.server.faults import bad_request
from hyvideo_rt.server.jobs import State, VideoRequest
from hyvideo_rt.server.settings import Settings

MAX_PROMPT_BYTES = 4096
MAX_SIDE, MAX_FRAMES, MAX_STEPS = 8192, 4096, 1000
STATUS = {
    State.QUEUED: "queued",
    State.RUNNING: "in_progress",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "failed",  # clients poll until completed or failed and know no third end
}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CreateVideo(Strict):
    """`POST /v1/videos`. What is left out is the model's own: its size, frames and steps."""

    prompt: str = Field(min_length=1, description=f"at most {MAX_PROMPT_BYTES} bytes of UTF-8")
    model: str | None = Field(default=None, max_length=200)
    size: str | None = Field(
        default=None, pattern=r"^[1-9]\d{0,3}x[1-9]\d{0,3}$", description="WIDTHxHEIGHT, pixels"
    )
    seconds: str | int | None = Field(
        default=None, description="length at 24 frames a second; or give num_frames"
    )
    preset: str | None = Field(
        default=None, max_length=64, description="a size by name, or HEIGHTxWIDTHxFRAMES"
    )
    num_frames: int | None = Field(default=None, ge=1, le=MAX_FRAMES, description="4n + 1")
    steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="drawn by the server if left out")
    guidance_scale: float = Field(default=6.0, ge=0, le=100)
    true_cfg_scale: float = Field(default=1.0, ge=0, le=100)
    flow_shift: float = Field(default=7.0, gt=0, le=100)
    negative_prompt: str = ""

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _text(cls, value: str) -> str:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise ValueError("expected valid Unicode, got a lone surrogate") from None
        if size > MAX_PROMPT_BYTES:
            raise ValueError(f"got {size} bytes of UTF-8, expected at most {MAX_PROMPT_BYTES}")
        return value

    @model_validator(mode="after")
    def _one_size(self) -> "CreateVideo":
        if self.preset and (self.size or self.num_frames or self.seconds):
            raise ValueError("got preset with size, num_frames or seconds; expected one or the other")
        if self.num_frames and self.seconds:
            raise ValueError("got num_frames and seconds; expected one of them")
        return self

    def resolve(self, settings: Settings) -> VideoRequest:
        """Every default filled in and the seed drawn. Raises ApiError with the field that is wrong."""
        if self.model not in (None, settings.model):
            raise bad_request(
                f"got the model {self.model!r}; this server has {settings.model!r}",
                "model",
                "model_not_found",
            )
        bucket = self._bucket(settings.default_bucket)
        steps = settings.default_steps if self.steps is None else self.steps
        params = SamplingParams(
            bucket=bucket,
            seed=resolve_seeds(self.seed, 1)[0],
            num_inference_steps=steps,
            guidance_scale=self.guidance_scale,
            true_cfg_scale=self.true_cfg_scale,
            negative_prompt=self.negative_prompt,
            flow_shift=self.flow_shift,
        )
        return VideoRequest(self.prompt, params)

    def fingerprint(self) -> str:
        """Equal for requests that ask for the same, however they are spelt."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    def _bucket(self, default: Bucket) -> Bucket:
        if self.preset:
            return _checked("preset", lambda: Bucket.parse(str(self.preset)))
        frames = self._num_frames(default)
        width, height = map(int, self.size.split("x")) if self.size else (default.width, default.height)
        _checked("num_frames", lambda: Bucket(default.height, default.width, frames))
        return _checked("size", lambda: Bucket(height, width, frames))

    def _num_frames(self, default: Bucket) -> int:
        if self.num_frames is not None:
            return self.num_frames
        if self.seconds is None:
            return default.num_frames
        text = str(self.seconds)
        if not (
            text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MAX_FRAMES // FPS and len(text) < 4
        ):
            raise bad_request(f"expected seconds from 1 to {MAX_FRAMES // FPS}, as a whole number", "seconds")
        return int(text) * FPS // 4 * 4 + 1


def _checked(param: str, make: Any) -> Bucket:
    try:
        bucket: Bucket = make()
    except InvalidRequest as error:
        raise bad_request(str(error), param) from None
    if max(bucket.height, bucket.width) > MAX_SIDE or bucket.num_frames > MAX_FRAMES:
        raise bad_request(f"got {bucket}; sides are at most {MAX_SIDE}, frames {MAX_FRAMES}", param)
    return bucket


class VideoError(Strict):
    code: str
    message: str


class Stage(Strict):
    """load, encode, denoise, decode or write, and how many of its steps or tiles are done."""

    name: str
    done: int
    total: int


class Video(Strict):
    """OpenAI's Video object down to `status`; below are our own fields."""

    id: str
    object: Literal["video"] = "video"
    model: str
    created_at: int
    completed_at: int | None
    expires_at: int | None
    error: VideoError | None
    progress: int
    prompt: str
    remixed_from_video_id: None = None
    seconds: str
    size: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    num_frames: int
    fps: int = FPS
    steps: int
    seed: int
    guidance_scale: float
    true_cfg_scale: float
    flow_shift: float
    negative_prompt: str
    attempts: int
    queue_position: int | None
    stage: Stage | None
    seconds_left: float | None
    stage_seconds: dict[str, float] | None
    sha256: str | None
    size_bytes: int | None


class VideoList(Strict):
    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(Strict):
    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class ErrorDetail(Strict):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Strict):
    error: ErrorDetail


def video_of(view: View, settings: Settings) -> Video:
    job, params = view.job, view.job.request.params
    finished = int(job.finished_at) if job.finished_at else None
    return Video(
        id=job.id,
        model=settings.model,
        created_at=int(job.created_at),
        completed_at=finished if job.state is State.COMPLETED else None,
        expires_at=finished + int(settings.limits.retention_s) if finished else None,
        error=_error_of(view),
        progress=view.percent,
        prompt=job.request.prompt,
        seconds=f"{job.bucket.num_frames / FPS:.4g}",
        size=f"{job.bucket.width}x{job.bucket.height}",
        status=STATUS[job.state],  # type: ignore[arg-type]
        num_frames=job.bucket.num_frames,
        steps=params.num_inference_steps,
        seed=params.seed,
        guidance_scale=params.guidance_scale,
        true_cfg_scale=params.true_cfg_scale,
        flow_shift=params.flow_shift,
        negative_prompt=params.negative_prompt,
        attempts=job.attempts,
        queue_position=view.ahead,
        stage=_stage_of(view),
        seconds_left=None if view.left_s is None else round(view.left_s, 2),
        stage_seconds=dict(job.output.seconds) if job.output else None,
        sha256=job.output.sha256 if job.output else None,
        size_bytes=job.output.size_bytes if job.output else None,
    )


def _error_of(view: View) -> VideoError | None:
    if view.job.state is State.CANCELLED:
        return VideoError(code="cancelled", message="the video was cancelled before it was finished")
    fault = view.job.fault
    return VideoError(code=fault.code, message=fault.message) if fault else None


def _stage_of(view: View) -> Stage | None:
    at = view.position
    return Stage(name=at.stage, done=at.done, total=at.total) if at else None
