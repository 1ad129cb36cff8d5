"""What a device attains, and how much arithmetic there is to be done."""

import pytest
import torch
from torch import nn

from hyvideo_rt.bench import work
from hyvideo_rt.bench.limits import Limits, data_sheet, measure
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.text import TextStates

PUBLISHED, TINY = MODELS["HYVideo-T/2-cfgdistill"], MODELS["tiny"]


def test_limits_are_measured() -> None:
    found = measure(torch.device("cpu"), runs=1)
    assert set(found.matrix_tf_s) == {"float32", "bfloat16"}
    assert 0.5 < found.copy_gb_s < 1000
    assert 0.001 < found.matrix_tf_s["float32"] < 100


def test_a_share_is_of_the_dtypes_own_limit() -> None:
    limits = Limits(copy_gb_s=10, matrix_tf_s={"float32": 2.0, "bfloat16": 8.0})
    assert limits.share(4e12, 4, torch.float32) == pytest.approx(0.5)
    assert limits.share(4e12, 4, torch.bfloat16) == pytest.approx(0.125)


def test_the_data_sheet_of_a_known_card() -> None:
    assert data_sheet("NVIDIA H100 80GB HBM3", 16) == 989
    assert data_sheet("Voodoo2", 16) is None


@pytest.mark.parametrize(
    ("size", "peta"), [("720x1280x129", 12.068), ("544x960x129", 4.285), ("720x720x129", 4.229)]
)
def test_a_step_is_what_the_literature_counts(size: str, peta: float) -> None:
    assert work.step_flops(PUBLISHED, Bucket.parse(size), 256) == pytest.approx(peta * 1e15, rel=1e-3)


def test_a_decode_counts_every_tile() -> None:
    """84 tiles of 720p: 4,214 TF of convolutions and 29 of attention, counted by hand elsewhere."""
    assert work.decode_flops(PUBLISHED, Bucket(720, 1280, 129)) == pytest.approx(4243e12, rel=5e-3)
    once = work.decode_flops(TINY, Bucket(64, 64, 17))
    assert work.tile_flops(TINY.vae, (5, 8, 8)) == once
    with torch.device("meta"):
        conv = nn.Conv3d(4, 8, 3)
        x = torch.empty(1, 4, 5, 6, 7)
    assert work._counted(conv, lambda: conv(x)) == 2 * 4 * 8 * 27 * 3 * 4 * 5


def test_an_encode_grows_with_the_prompt() -> None:
    layers, width, inner = 30, 4096, 14336
    per_token = 2 * layers * (2 * width**2 + 2 * width * 1024 + 3 * width * inner)
    difference = work.encode_flops(PUBLISHED, 200) - work.encode_flops(PUBLISHED, 100)
    attention = 4 * layers * width * (200**2 - 100**2)
    assert difference == pytest.approx(100 * per_token + attention, rel=0.02)


def test_a_request_is_the_sum_of_its_stages() -> None:
    text = TextStates(torch.zeros(1, 9, 64), torch.zeros(1, 64), num_llm_tokens=9, truncated=False)
    params = SamplingParams(Bucket(64, 64, 17), seed=0, num_inference_steps=20)
    found = work.request_flops(TINY, text, params)
    assert found["denoise"] == 20 * TINY.dit.flops_per_step(params.bucket, 9)
    assert found["video"] == found["encode"] + found["denoise"] + found["decode"]
