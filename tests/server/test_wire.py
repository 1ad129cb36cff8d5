"""Bodies on the wire, field by field: what is accepted, what is refused and with which `param`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai.types import Video as SdkVideo
from pydantic import ValidationError
from stubs import job_of, stub_settings

from hyvideo_rt.buckets import PRESETS, Bucket
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.server.board import Position
from hyvideo_rt.server.desk import View
from hyvideo_rt.server.faults import ApiError, error_body, invalid
from hyvideo_rt.server.jobs import Fault, Output, State
from hyvideo_rt.server.settings import Limits, Settings
from hyvideo_rt.server.wire import CreateVideo, video_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return stub_settings(tmp_path, limits=Limits(retention_s=1000))


GOLDEN: dict[str, Any] = {
    "id": "video_00000000000000000000000000000007",
    "object": "video",
    "model": "tiny",
    "created_at": 100,
    "completed_at": None,
    "expires_at": None,
    "error": None,
    "progress": 0,
    "prompt": "a cat",
    "remixed_from_video_id": None,
    "seconds": "0.7083",
    "size": "96x64",
    "status": "queued",
    "num_frames": 17,
    "fps": 24,
    "steps": 4,
    "seed": 1,
    "guidance_scale": 6.0,
    "true_cfg_scale": 1.0,
    "flow_shift": 7.0,
    "negative_prompt": "",
    "attempts": 0,
    "queue_position": 3,
    "stage": None,
    "seconds_left": 12.35,
    "stage_seconds": None,
    "sha256": None,
    "size_bytes": None,
}


def changed(**fields: Any) -> Any:
    return replace(job_of(7, Bucket(64, 96, 17), created_at=100.7), **fields)


VIEWS: dict[str, tuple[View, dict[str, Any]]] = {
    "queued": (View(changed(), ahead=3, left_s=12.345), {}),
    "running": (
        View(changed(state=State.RUNNING, attempts=1), Position("denoise", 2, 4), left_s=1.0, percent=50),
        {
            "status": "in_progress",
            "progress": 50,
            "attempts": 1,
            "queue_position": None,
            "seconds_left": 1.0,
            "stage": {"name": "denoise", "done": 2, "total": 4},
        },
    ),
    "completed": (
        View(
            changed(state=State.COMPLETED, finished_at=110.2, output=Output(9, "ab", {"denoise": 1.0})),
            percent=100,
        ),
        {
            "status": "completed",
            "progress": 100,
            "completed_at": 110,
            "expires_at": 1110,
            "queue_position": None,
            "seconds_left": None,
            "stage_seconds": {"denoise": 1.0},
            "sha256": "ab",
            "size_bytes": 9,
        },
    ),
    "failed": (
        View(changed(state=State.FAILED, finished_at=110.2, fault=Fault("timeout", "too long"))),
        {
            "status": "failed",
            "expires_at": 1110,
            "queue_position": None,
            "seconds_left": None,
            "error": {"code": "timeout", "message": "too long"},
        },
    ),
    "cancelled": (
        View(changed(state=State.CANCELLED, finished_at=110.2)),
        {
            "status": "failed",
            "expires_at": 1110,
            "queue_position": None,
            "seconds_left": None,
            "error": {"code": "cancelled", "message": "the video was cancelled before it was finished"},
        },
    ),
}


@pytest.mark.parametrize("name", VIEWS)
def test_golden_bodies_which_the_sdk_reads_too(settings: Settings, name: str) -> None:
    view, differences = VIEWS[name]
    body = json.loads(video_of(view, settings).model_dump_json())
    assert body == GOLDEN | differences
    assert SdkVideo.model_validate({**body, "size": "1280x720"}).status == body["status"]


def resolved(settings: Settings, **fields: Any) -> Any:
    return CreateVideo(prompt="a cat", **fields).resolve(settings).params


def test_what_is_left_out_is_the_models_own(settings: Settings) -> None:
    params = resolved(settings)
    assert (params.bucket, params.num_inference_steps) == (Bucket(64, 64, 17), 20)
    assert 0 <= params.seed <= 1_000_000


def test_size_is_width_by_height(settings: Settings) -> None:
    assert resolved(settings, size="96x64").bucket == Bucket(64, 96, 17)
    assert resolved(settings, size="96x64", num_frames=33).bucket == Bucket(64, 96, 33)
    assert resolved(settings, preset="720p-portrait").bucket == PRESETS["720p-portrait"]
    assert resolved(settings, preset="64x96x5").bucket == Bucket(64, 96, 5)


@pytest.mark.parametrize(("seconds", "frames"), [("4", 97), (4, 97), ("8", 193), ("1", 25)])
def test_seconds_are_frames_at_24(settings: Settings, seconds: str | int, frames: int) -> None:
    assert resolved(settings, seconds=seconds).bucket.num_frames == frames


def test_a_seed_that_is_given_stays_and_one_that_is_drawn_varies(settings: Settings) -> None:
    assert resolved(settings, seed=7).seed == 7
    assert len({resolved(settings).seed for _ in range(20)}) > 10


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"size": "65x64"}, "size"),
        ({"num_frames": 18}, "num_frames"),
        ({"preset": "nothing"}, "preset"),
        ({"preset": "16x16x99999"}, "preset"),
        ({"model": "sora-2"}, "model"),
        ({"seconds": "0"}, "seconds"),
        ({"seconds": "4.5"}, "seconds"),
        ({"seconds": "٤"}, "seconds"),
        ({"seconds": "9" * 5000}, "seconds"),
        ({"seconds": 10**30}, "seconds"),
    ],
)
def test_what_means_no_video_names_its_field(settings: Settings, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        resolved(settings, **fields)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "é" * 2049}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"negative_prompt": "x" * 4097}, "negative_prompt"),
        ({"size": "64"}, "size"),
        ({"size": "0x64"}, "size"),
        ({"size": "99999x64"}, "size"),
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"flow_shift": 0}, "flow_shift"),
        ({"flow_shift": float("inf")}, "flow_shift"),
        ({"output_path": "/etc/passwd"}, "output_path"),
    ],
)
def test_what_is_malformed_names_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError) as refused:
        CreateVideo(**{"prompt": "a cat", **fields})
    error = invalid(list(refused.value.errors()))
    assert (error.status, error.param) == (400, param)
    assert error.code == ("unknown_parameter" if param == "output_path" else "invalid_value")


@pytest.mark.parametrize("extra", [{"size": "64x64"}, {"num_frames": 17}, {"seconds": "4"}])
def test_a_preset_stands_alone(extra: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="one or the other"):
        CreateVideo(prompt="a cat", preset="tiny-square", **extra)


def test_prompts_of_4096_bytes_are_taken() -> None:
    assert CreateVideo(prompt="é" * 2048).prompt


def test_fingerprints_tell_requests_apart() -> None:
    base = CreateVideo(prompt="a cat")
    assert base.fingerprint() == CreateVideo(prompt="a cat", guidance_scale=6.0).fingerprint()
    changes: list[dict[str, Any]] = [{"prompt": "a dog"}, {"seed": 1}, {"size": "64x64"}, {"steps": 3}]
    for change in changes:
        assert CreateVideo(**{"prompt": "a cat", **change}).fingerprint() != base.fingerprint()


def test_the_body_of_an_error() -> None:
    assert error_body(429, "full", "queue_full", None) == {
        "error": {"message": "full", "type": "rate_limit_error", "param": None, "code": "queue_full"}
    }


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_an_open_address_needs_a_key(tmp_path: Path, host: str) -> None:
    settings = stub_settings(tmp_path)
    with pytest.raises(InvalidRequest, match="without an API key"):
        replace(settings, host=host)
    assert replace(settings, host=host, api_keys=("k" * 16,)).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.9.9.9"])
def test_a_loopback_address_needs_none(tmp_path: Path, host: str) -> None:
    assert replace(stub_settings(tmp_path), host=host).api_keys == ()


@pytest.mark.parametrize("key", ["short", "with space " * 3, "ключ" * 8])
def test_a_weak_key_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidRequest, match="API key|got a key"):
        stub_settings(tmp_path, keys=(key,))
