"""A whole video, stage by stage: memory of each contestant, reasons of peers."""

from pathlib import Path
from typing import Any

import pytest

from hyvideo_rt.bench import end_to_end
from hyvideo_rt.bench.end_to_end import STAGES, Entered, enter, enter_all, measure
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.sampling import SamplingParams

PARAMS = SamplingParams(Bucket(64, 64, 17), seed=0, num_inference_steps=1)


def no_peer(*_: object, **__: object) -> Any:
    raise ModuleNotFoundError("No module named 'diffusers'")


def test_stages_ratios_and_memory(tmp_path: Path) -> None:
    kept: list[dict[str, Any]] = []
    result = measure(PARAMS, 1, tmp_path, lambda r: kept.append(dict(r["stages"])), only_eager=True)
    assert [list(stages) for stages in kept] == [list(STAGES[: i + 1]) for i in range(len(STAGES))]
    assert 0 < result["max_video_difference"] < 1e-4
    assert result["reasons"] == {}
    video = result["stages"]["video"]
    for row in (video["hyvideo_rt"], video["diffusers"]):
        assert 20e6 < row["host_steady_bytes"] <= row["host_peak_bytes"] < 2e9
        assert row["device_peak_bytes"] is None
    expected = video["diffusers"]["median_s"] / video["hyvideo_rt"]["median_s"]
    assert video["ratios"]["eager"]["median"] == expected


def test_without_a_peer_ours_is_measured_and_the_reason_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_to_end, "load_peer", no_peer)
    result = measure(PARAMS, 1, tmp_path, lambda result: None, only_eager=True)
    assert result["reasons"] == {"diffusers": "ModuleNotFoundError: No module named 'diffusers'"}
    assert result["max_video_difference"] is None
    assert set(result["stages"]["video"]) == {"hyvideo_rt", "ratios"}
    assert result["stages"]["video"]["ratios"] == {}


def test_ours_has_to_run() -> None:
    with pytest.raises(ModuleNotFoundError):
        enter_all({"engines": (no_peer, lambda made: {})})


def test_memory_is_by_stage_above_what_was_there() -> None:
    def stages(held: bytearray) -> dict[str, Any]:
        return {"small": lambda: None, "large": lambda: b"y" * 100_000_000}

    found: Entered = enter(lambda: bytearray(b"x" * 50_000_000), stages)
    small, large = found.memory["small"], found.memory["large"]
    assert small.host_peak_bytes is not None
    assert large.host_peak_bytes is not None
    assert large.host_steady_bytes is not None
    assert 49e6 < small.host_peak_bytes < 80e6
    assert 149e6 < large.host_peak_bytes < 200e6
    assert 49e6 < large.host_steady_bytes < 80e6
