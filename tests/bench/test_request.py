"""A request on a timeline, the ladder, and the pictures of both."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from hyvideo_rt.bench.limits import Limits
from hyvideo_rt.bench.networks import dit_in_8_bits, embedded, step, step_inputs, weights_in_8_bits
from hyvideo_rt.bench.peers import diffusers_decode, diffusers_step
from hyvideo_rt.bench.request import measure, stage_seconds, step_seconds, tiny
from hyvideo_rt.bench.steps import Rung, climb
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.kernels.ops import REFERENCE
from hyvideo_rt.sampling import SamplingParams

CPU = torch.device("cpu")
LIMITS = Limits(copy_gb_s=10, matrix_tf_s={"float32": 1.0, "bfloat16": 2.0})


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return measure(tiny(), SamplingParams(Bucket(64, 64, 17), seed=0, num_inference_steps=3))


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
    assert 100e6 < result["host_bytes"]["now"] <= result["host_bytes"]["peak"]


def test_stages_and_steps_from_moments() -> None:
    ends = {"encode": [0, 1], "denoise": [1, 3, 6], "decode": [7, 9]}
    moments = [
        {"stage": stage, "done": i, "of": 9, "at_s": at}
        for stage, each in ends.items()
        for i, at in enumerate(each)
    ]
    assert stage_seconds(moments) == {"encode": 1, "denoise": 5, "decode": 2, "video": 9}
    assert step_seconds(moments) == [2, 3]


def test_a_ladder_compares_and_explains() -> None:
    def missing() -> Any:
        raise ModuleNotFoundError("No module named 'xfuser'")

    x = torch.ones(2**16)
    rungs = [
        Rung("first", lambda: lambda: x.sin().sin().sin().sin().sin().sin(), torch.float32),
        Rung("absent", missing, torch.float32),
        Rung(
            "second",
            lambda: lambda: 1.01 * x.sin().sin().sin().sin().sin().sin(),
            torch.bfloat16,
            quality="fp32",
        ),
    ]
    kept: list[list[dict[str, Any]]] = []
    climb(rungs, 10**6, LIMITS, CPU, 5, kept.append)
    assert len(kept) == 5
    first, absent, second = kept[-1]
    assert absent == {
        "rung": "absent",
        "quality": None,
        "dtype": "float32",
        "reason": "ModuleNotFoundError: No module named 'xfuser'",
    }
    assert first["difference"] == 0
    assert second["difference"] == pytest.approx(0.01, rel=1e-3)
    assert second["ratio"]["of"] == "first"
    assert second["runs"] == 5
    assert first["tf_s"] == pytest.approx(1e-6 / first["median_s"], rel=1e-3)
    assert first["share"] == pytest.approx(first["tf_s"], abs=1e-4)
    assert second["share"] == pytest.approx(second["tf_s"] / 2, abs=1e-4)


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


@torch.inference_mode()
def test_the_ladders_8_bit_network_is_the_checkpoints() -> None:
    networks = embedded()
    inputs = step_inputs(networks, Bucket(64, 64, 17))
    ours = step(dit_in_8_bits(networks, weights_in_8_bits(networks), REFERENCE), inputs)()
    loaded = embedded_tiny().load_dit(CPU, torch.float32, fp8=True, fp8_products=True)
    torch.testing.assert_close(ours, step(loaded, inputs)(), rtol=0, atol=0)
    assert (ours - step(networks.dit, inputs)()).abs().max() > 1e-3


@torch.inference_mode()
def test_peers_compute_what_we_do() -> None:
    networks = embedded()
    inputs = step_inputs(networks, Bucket(64, 64, 17))
    torch.testing.assert_close(
        diffusers_step(networks, inputs)(), step(networks.dit, inputs)(), rtol=0, atol=1e-4
    )
    z = torch.randn(1, 16, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(diffusers_decode(networks, z)(), networks.vae.decode(z), rtol=0, atol=1e-4)
