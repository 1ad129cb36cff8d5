"""What a device attains, and how much arithmetic there is to be done."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.limits import Limits, data_sheet, matrix_rate, measure
from hyvideo_rt.bench.timing import Timing, timed
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.text import TextStates

CPU = torch.device("cpu")
PUBLISHED, TINY = MODELS["HYVideo-T/2-cfgdistill"], MODELS["tiny"]


def test_limits_are_rates_of_what_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopwatch that says 2 s of everything, and calls it."""
    monkeypatch.setattr(limits, "CPU_SIDE", 64)
    results = []

    def two_seconds(contestants: Mapping[str, Callable[[], Tensor]], *_: object, **__: object) -> Any:
        results.append(contestants[""]())
        return {"": Timing(2, 2, 2, 1)}

    monkeypatch.setattr(limits, "interleave", two_seconds)
    found = measure(CPU)
    copy, *products = results
    assert found.copy_gb_s == round(2 * copy.nbytes / 2 / 1e9, 1) == 0.1
    assert copy.std() > 0.9
    assert found.matrix_tf_s == {"float32": 2.621e-07, "bfloat16": 2.621e-07}  # 2 x 64^3 in 2 s
    for product, dtype in zip(products, (torch.float32, torch.bfloat16), strict=True):
        assert (product.shape, product.dtype) == ((64, 64), dtype)
        assert 6 < product.float().std() < 10, "each number is a sum of 64 random products"


def test_a_limit_is_what_a_loop_attains() -> None:
    """Within a factor of four: others may work on this machine."""
    x = torch.randn(2048, 2048)
    least_s = min(timed(lambda: x @ x, CPU)[0] for _ in range(3))
    assert 0.25 < matrix_rate(CPU, torch.float32, 1) / (2 * 2048**3 / least_s / 1e12) < 4


def test_a_share_is_of_the_dtypes_own_limit() -> None:
    found = Limits(copy_gb_s=10, matrix_tf_s={"float32": 2.0, "bfloat16": 8.0})
    assert found.share(4e12, 4, torch.float32) == pytest.approx(0.5)
    assert found.share(4e12, 4, torch.bfloat16) == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("setting", "seconds"),
    [
        (None, 3),  # 1 TF of products and 5 of attention at 2 TF/s
        ("8-bit weights", 3),
        ("8-bit products", 2.6),  # 1 at 10, 5 at 2
        ("8-bit attention", 1),  # 1 at 2, 5 at 10
        ("8-bit attention and output", 1),
        ("SageAttention (INT8)", 2),  # 1 + 2.5 at 2, 2.5 at 10
        ("8-bit products and attention", 0.6),
    ],
)
def test_what_is_in_8_bits_has_their_rate_and_the_rest_its_own(setting: str | None, seconds: float) -> None:
    flops = work.Flops(products=10**12, attention=5 * 10**12)
    assert limits.least_s(flops, setting, {16: 2, 8: 10}) == pytest.approx(seconds)
    measured = Limits(1, {"bfloat16": 2, "float8_e4m3fn": 10})
    assert measured.least_s(flops, torch.bfloat16, setting) == pytest.approx(seconds)


def test_without_8_bits_a_device_needs_no_rate_of_them() -> None:
    measured = Limits(1, {"float32": 2.0})
    assert measured.least_s(work.Flops(10**12), torch.float32, "fp32") == pytest.approx(0.5)
    with pytest.raises(KeyError):
        measured.least_s(work.Flops(10**12), torch.float32, "8-bit products")


def test_a_720p_steps_floor_with_8_bit_products_is_attentions() -> None:
    """12.2 s in 16 bits; 87 % of it is attention, which stays there."""
    parts = work.step_parts(PUBLISHED, Bucket(720, 1280, 129), 256)
    assert parts.total == work.step_flops(PUBLISHED, Bucket(720, 1280, 129), 256)
    assert parts.attention / parts.total == pytest.approx(0.866, abs=1e-3)
    rates = limits.DATA_SHEET["NVIDIA H100 80GB HBM3"]
    assert limits.least_s(parts, "8-bit products", rates) == pytest.approx(11.4, abs=0.05)


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
