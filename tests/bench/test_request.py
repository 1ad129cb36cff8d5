"""A request on a timeline, the ladder, and the pictures of both."""

import json
import subprocess
import sys
import time
from typing import Any

import pytest
import torch

from hyvideo_rt.bench.limits import Limits
from hyvideo_rt.bench.request import (
    measure,
    request,
    stage_seconds,
    step_seconds,
    summary,
    tiny,
)
from hyvideo_rt.bench.startup import FOLDER
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import SamplingParams

CPU = torch.device("cpu")
LIMITS = Limits(copy_gb_s=10, matrix_tf_s={"float32": 1.0, "bfloat16": 2.0})


PARAMS = SamplingParams(Bucket(64, 64, 17), seed=0, num_inference_steps=3)
SPOILT = 600_000_000  # bytes, for a moment while the pipeline is loaded


def after_a_large_load() -> Pipeline:
    torch.ones(SPOILT // 4)
    return tiny()


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    kept: list[dict[str, Any]] = []
    found = measure(after_a_large_load, PARAMS, CPU, kept.append)
    assert kept == [found]
    return found


def test_every_part_of_the_request_is_on_the_timeline(result: dict[str, Any]) -> None:
    moments = result["timeline"]
    order = [(moment["stage"], moment["done"]) for moment in moments]
    steps = [("denoise", i) for i in range(4)]
    assert order == [
        *(("encode", 0), ("encode", 1)),
        *steps,
        *(("decode", 0), ("decode", 1)),
        *(("write", 0), ("write", 1)),
    ]
    times = [moment["at_s"] for moment in moments]
    assert times == sorted(times)
    seconds = result["seconds"]
    stages = ("encode", "denoise", "decode", "write")
    assert 0.8 * seconds["video"] < sum(seconds[stage] for stage in stages) <= seconds["video"]
    assert result["step"]["runs"] == 2
    assert set(result["shares"]) == {"encode", "denoise", "decode"}
    assert all(0 < share < 1.2 for share in result["shares"].values())
    assert result["complete"]


def test_memory_is_of_the_networks_and_of_the_request_alone(result: dict[str, Any]) -> None:
    """Weights are 52 MB; the peak is neither that of the loading nor that of the limit's matrices."""
    weights = sum(path.stat().st_size for path in FOLDER.rglob("*.safetensors"))
    assert weights < result["host_steady_bytes"] < result["host_peak_bytes"] < SPOILT / 2
    assert result["device_peak_bytes"] is result["device_steady_bytes"] is None


def test_a_request_that_is_cut_has_what_it_has_done() -> None:
    """The clock stands still while that is written."""
    pipeline, seen = tiny(), list[dict[str, Any]]()

    def slowly(moments: list[dict[str, Any]]) -> None:
        time.sleep(0.2)
        seen.append(summary(list(moments), pipeline, PARAMS, LIMITS))

    start = time.perf_counter()
    moments = request(pipeline, PARAMS, slowly)
    assert time.perf_counter() - start - moments[-1]["at_s"] > 10 * 0.2
    assert [len(each["timeline"]) for each in seen] == list(range(1, 11))
    cut = seen[4]  # encode began and ended, steps began, two have ended
    assert (set(cut["shares"]), cut["step"]["runs"]) == ({"encode"}, 1)
    assert seen[2]["first_step_s"] is seen[2]["step"] is None
    assert set(seen[-1]["shares"]) == {"encode", "denoise", "decode"}


def test_stages_and_steps_from_moments() -> None:
    ends = {"encode": [0, 1], "denoise": [1, 3, 6], "decode": [7, 9]}
    moments = [
        {"stage": stage, "done": i, "of": 9, "at_s": at}
        for stage, each in ends.items()
        for i, at in enumerate(each)
    ]
    assert stage_seconds(moments) == {"encode": 1, "denoise": 5, "decode": 2, "video": 9}
    assert step_seconds(moments) == [2, 3]


def test_the_command_line_finds_every_benchmark() -> None:
    command = [sys.executable, "-m", "hyvideo_rt.cli.main", "bench"]
    done = subprocess.run([*command, "request", "--steps", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["conditions"]["steps"] == 2
    assert found["conditions"]["command"].endswith("bench request --steps 2")
    wrong = subprocess.run([*command, "speed"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "gpu-suite" in wrong.stderr
