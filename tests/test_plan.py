"""Weights are counted exactly; a plan fits, falls back to offload, or says what would fit."""

from dataclasses import replace

import pytest
import torch

from hyvideo_rt.buckets import PRESETS, Bucket
from hyvideo_rt.config import MODELS
from hyvideo_rt.errors import DoesNotFit
from hyvideo_rt.pipeline import Precision
from hyvideo_rt.plan import GIB, fitting_plan, free_bytes, make_plan, weight_bytes

GPU, CPU = torch.device("cuda"), torch.device("cpu")
PUBLISHED = MODELS["HYVideo-T/2-cfgdistill"]
SIZE_720P = PRESETS["720p-landscape"]
ON_GPU = Precision.default(GPU)


def test_weights_of_the_published_model() -> None:
    """Parameter counts of the published release: 12,821,012,544 and 246,478,803."""
    weights = weight_bytes(PUBLISHED, ON_GPU)
    assert weights["dit"] == 2 * 12_821_012_544
    assert weights["vae"] == 2 * 246_478_803
    layer = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    assert weights["llm"] == 2 * (7_505_186_816 - 2 * layer)  # two layers are never built


def test_fp8_halves_the_block_weights_alone() -> None:
    full, small = weight_bytes(PUBLISHED, ON_GPU), weight_bytes(PUBLISHED, replace(ON_GPU, fp8=True))
    d = 3072
    in_blocks = 20 * 2 * (6 + 3 + 1 + 4 + 4) * d**2 + 40 * (3 + 7 + 5) * d**2
    scales = (20 * 2 * (6 + 3 + 1 + 4 + 1) + 40 * (3 + 7 + 1)) * d  # one per output channel
    assert full["dit"] - small["dit"] == in_blocks - 2 * scales
    assert {**full, "dit": 0} == {**small, "dit": 0}


def test_a_larger_video_needs_more_and_offload_less() -> None:
    peaks = [
        make_plan(PUBLISHED, Bucket(*size), ON_GPU, GPU).stages
        for size in ((544, 960, 129), (720, 1280, 129))
    ]
    assert peaks[0]["denoise"] < peaks[1]["denoise"]
    resident = make_plan(PUBLISHED, SIZE_720P, ON_GPU, GPU)
    offloaded = make_plan(PUBLISHED, SIZE_720P, ON_GPU, GPU, offload=True)
    for stage, visitors in {"encode": ("llm", "clip"), "denoise": ("dit",), "decode": ("vae",)}.items():
        absent = sum(size for name, size in resident.weights.items() if name not in visitors)
        assert resident.stages[stage] - offloaded.stages[stage] == absent
    assert offloaded.host_bytes == sum(resident.weights.values())
    assert resident.host_bytes == 0


@pytest.mark.parametrize(
    ("budget_gib", "offload"),
    [(80, False), (60, False), (45, True)],
)
def test_the_first_plan_that_fits(budget_gib: int, offload: bool) -> None:
    plan = fitting_plan(PUBLISHED, SIZE_720P, ON_GPU, GPU, offload=False, budget_bytes=budget_gib * GIB)
    assert plan.offload == offload
    assert plan.peak_bytes <= budget_gib * GIB


def test_a_refusal_says_what_would_fit() -> None:
    with pytest.raises(
        DoesNotFit, match=r"needs 3\d\.\d GiB .* with offload; 30\.0 GiB are free\n  --use-fp8"
    ):
        fitting_plan(PUBLISHED, SIZE_720P, ON_GPU, GPU, offload=False, budget_bytes=30 * GIB)
    with pytest.raises(DoesNotFit, match="no preset of this model fits"):
        fitting_plan(PUBLISHED, SIZE_720P, ON_GPU, GPU, offload=False, budget_bytes=8 * GIB)


def test_a_refusal_names_the_largest_size_that_fits() -> None:
    """Text encoders weigh the same at every size, so the budget lies between two denoising peaks."""
    large = Bucket(1440, 2560, 129)
    budget = make_plan(PUBLISHED, SIZE_720P, ON_GPU, GPU, offload=True).peak_bytes
    assert budget < make_plan(PUBLISHED, large, replace(ON_GPU, fp8=True), GPU, offload=True).peak_bytes
    with pytest.raises(
        DoesNotFit, match="720x1280x129 would fit|1280x720x129 would fit|960x960x129 would fit"
    ):
        fitting_plan(PUBLISHED, large, ON_GPU, GPU, offload=False, budget_bytes=budget)


def test_a_cpu_never_offloads() -> None:
    tiny = MODELS["tiny"]
    plan = fitting_plan(
        tiny, PRESETS["tiny-square"], Precision.default(CPU), CPU, offload=False, budget_bytes=GIB
    )
    assert not plan.offload
    with pytest.raises(DoesNotFit):
        fitting_plan(
            tiny, PRESETS["tiny-square"], Precision.default(CPU), CPU, offload=False, budget_bytes=2**20
        )


def test_free_memory_of_the_host() -> None:
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 0 < free_bytes(CPU) <= total
