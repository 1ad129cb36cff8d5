"""E4M3's own rules, by hand, and products in it against fp64."""

import pytest
import torch

from hyvideo_rt.kernels.attention import joint_attention_fp8, joint_attention_reference
from hyvideo_rt.kernels.fp8 import E4M3, fp8_linear_reference, round_e4m3, widen_e4m3


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1.0, 1.0),
        (1.0625, 1.0),  # halfway between 1 and 1.125: to the even one
        (1.1875, 1.25),
        (447.0, 448.0),
        (1e6, 448.0),  # saturates
        (-1e6, -448.0),
        (2**-9, 2**-9),  # the smallest
        (2**-11, 0.0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding(value: float, rounded: float, dtype: torch.dtype) -> None:
    x = torch.tensor([value], dtype=dtype)
    out = round_e4m3(x)
    assert out.dtype == dtype
    if dtype == torch.float32 or float(x) == value:
        assert out.item() == rounded
    assert widen_e4m3(out.to(E4M3), x).item() == out.item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e3])
def test_a_product_in_e4m3_is_right_to_its_three_bits(dtype: torch.dtype, size: float) -> None:
    """Each factor is off by at most 1/16, so a sum of 512 is off by about sqrt(2) / 16 / sqrt(3) of it."""
    generator = torch.Generator().manual_seed(0)
    x = (size * torch.randn(2, 5, 512, generator=generator)).to(dtype)
    wide = torch.randn(512, 7, generator=generator)
    scale = wide.abs().amax(dim=0) / 448
    bias = torch.randn(7, generator=generator).to(dtype)
    out = fp8_linear_reference(x, (wide / scale).to(E4M3), scale, bias)
    exact = x.double() @ wide.double() + bias.double()
    error = (out.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert out.dtype == dtype
    assert error < 0.05


def test_rows_have_their_own_scales() -> None:
    """A row a million times smaller than its neighbour loses nothing by it."""
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    weight, scale, bias = torch.eye(64).to(E4M3), torch.ones(64), torch.zeros(64)
    small = fp8_linear_reference(x * torch.tensor([[1e-6], [1.0]]), weight, scale, bias)
    torch.testing.assert_close(small[0] * 1e6, fp8_linear_reference(x, weight, scale, bias)[0])


def test_a_row_of_zeros_is_zeros() -> None:
    out = fp8_linear_reference(torch.zeros(1, 16), torch.ones(16, 4).to(E4M3), torch.ones(4), torch.ones(4))
    assert torch.equal(out, torch.ones(1, 4))


def test_attention_in_e4m3() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 40, 3, 64, generator=generator)
    valid = torch.tensor([40, 25])
    exact = joint_attention_reference(q, k, v, valid)
    out = joint_attention_fp8(q, k, v, valid)
    assert 0.005 < (out - exact).square().mean().sqrt() / exact.square().mean().sqrt() < 0.08
    k[1, 25:], v[1, 25:] = 400.0, -400.0  # padding reaches no token
    assert torch.equal(joint_attention_fp8(q, k, v, valid), out)
