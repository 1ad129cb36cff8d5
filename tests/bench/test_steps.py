"""The ladder: rows that compare and explain, kept whatever happens; the limit of what mixes precisions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hyvideo_rt.bench.limits import Limits
from hyvideo_rt.bench.networks import (
    Networks,
    dit_in_8_bits,
    embedded,
    step,
    step_inputs,
    weights_in_8_bits,
)
from hyvideo_rt.bench.peers import diffusers_decode, diffusers_step
from hyvideo_rt.bench.rungs import Rung, climb
from hyvideo_rt.bench.steps import denoise_ladder
from hyvideo_rt.bench.work import IN_8_BITS, Flops
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.config import MODELS
from hyvideo_rt.kernels.ops import REFERENCE
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.vae import CausalVAE

CPU, FP32 = torch.device("cpu"), torch.float32
LIMITS = Limits(10, {"float32": 1.0, "bfloat16": 2.0, "float8_e4m3fn": 4.0})
FLOPS = Flops(10**6, 3 * 10**6)


class Calls:
    """A contestant that counts; factor is how far off its result is."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor, self.count = factor, 0
        self.x = torch.linspace(0, 1, 2**12)

    def __call__(self) -> Tensor:
        self.count += 1
        return self.factor * self.x.sin()


def missing() -> Any:
    raise ModuleNotFoundError("No module named 'xfuser'")


def rungs(first: Calls, second: Calls) -> list[Rung]:
    return [
        Rung("first", lambda: first, torch.bfloat16, compiles=False),
        Rung("absent", missing, torch.bfloat16),
        Rung("second", lambda: second, torch.bfloat16, quality="8-bit products"),
    ]


def test_a_ladder_compares_and_explains() -> None:
    first, second = Calls(), Calls(1.01)
    kept: list[list[dict[str, Any]]] = []
    climb(rungs(first, second), FLOPS, LIMITS, CPU, 5, kept.append)
    assert len(kept) == 3 + 5, "after every first call and every round"
    one, absent, other = kept[-1]
    assert absent == {
        "rung": "absent",
        "quality": None,
        "dtype": "bfloat16",
        "reason": "ModuleNotFoundError: No module named 'xfuser'",
    }
    assert (first.count, one["runs"], second.count, other["runs"]) == (7, 5, 7, 5)
    assert one["difference"] == 0
    assert other["difference"] == pytest.approx(0.01, rel=1e-3)
    assert other["ratio"]["of"] == "first"
    assert other["ratio"]["median"] == pytest.approx(one["median_s"] / other["median_s"])
    assert one["tf_s"] == pytest.approx(4e-6 / one["median_s"], rel=1e-3)
    # 4 MF at 2 TF/s; of the second rung 1 MF at 4 TF/s and 3 MF at 2
    assert (one["least_s"], other["least_s"]) == pytest.approx((2e-6, 1.75e-6))
    for row in (one, other):
        assert row["share_of_limit"] == pytest.approx(row["least_s"] / row["median_s"], abs=1e-4)
        assert row["device_peak_bytes"] is None


def test_of_few_rounds_none_is_wasted_and_each_rung_has_one_at_once() -> None:
    first, second = Calls(), Calls()
    kept: list[list[dict[str, Any]]] = []
    climb(rungs(first, second), FLOPS, LIMITS, CPU, 2, kept.append)
    assert (first.count, second.count) == (2, 3), "its first call compiles nothing: it counts"
    assert [[row.get("runs") for row in rows] for rows in kept] == [
        [1, None, None],
        [1, None, None],
        [1, None, 1],
        [2, None, 2],
    ]
    assert kept[0][0]["median_s"] == kept[0][0]["first_s"]
    assert kept[2][2]["ratio"]["low"] is None


def test_a_rung_that_ends_the_process_leaves_the_rows_before_it() -> None:
    def fatal() -> Any:
        raise SystemExit(139)

    kept: list[list[dict[str, Any]]] = []
    with pytest.raises(SystemExit):
        climb([*rungs(Calls(), Calls()), Rung("fatal", fatal, FP32)], FLOPS, LIMITS, CPU, 2, kept.append)
    assert [row.get("runs") for row in kept[-1]] == [1, None, 1, None]


def test_memory_is_what_a_rung_added() -> None:
    def heavy() -> Any:
        held = torch.ones(2**24)  # 64 MB
        return lambda: torch.cat([held, held])[: 2**12].clone()  # another 128 for a moment

    kept: list[list[dict[str, Any]]] = []
    climb([Rung("heavy", heavy, FP32), *rungs(Calls(), Calls())], FLOPS, LIMITS, CPU, 1, kept.append)
    row, light = kept[-1][0], kept[-1][1]
    assert 60e6 < row["host_steady_bytes"] < 110e6
    assert 185e6 < row["host_peak_bytes"] < 260e6
    assert light["host_peak_bytes"] < 20e6


def test_every_setting_in_8_bits_has_a_rung_of_its_own_on_a_gpu(tmp_path: Path) -> None:
    """And every attention and backend of engines, those at the end."""
    config = MODELS["tiny"]
    with torch.device("meta"):
        networks = Networks(config, HunyuanVideoDiT(config.dit), CausalVAE(config.vae), torch.device("cuda"))
    found = denoise_ladder(networks, Bucket(64, 64, 17), "fa3", tmp_path)
    names = [rung.name for rung in found]
    assert len(set(names)) == len(names)
    lossy = {rung.quality for rung in found if rung.quality}
    assert lossy == set(IN_8_BITS) - {"bf16", "8-bit weights"}
    assert {"fa3 attention", "cudnn attention", "sage attention", "fp8 attention"} < set(names)
    assert names[-3:] == ["engines of inductor", "engines of tensorrt", "engines of tensorrt_rtx"]


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
