"""Attention's q, k, v in E4M3: the formula, the kernel, and what centring saves."""

import pytest
import torch
from oracle import DEVICE
from torch import Tensor

from hyvideo_rt.kernels.attention import joint_attention_reference
from hyvideo_rt.kernels.fp8 import E4M3
from hyvideo_rt.kernels.smooth import Smoothed, smooth_reference
from hyvideo_rt.kernels.smooth_triton import smooth


def qkv(tokens: int, heads: int, hd: int, dtype: torch.dtype, b: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """As the model's: q and k normalised, k with a direction that all tokens share, v with a mean."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, b, tokens, heads, hd, generator=generator)
    k = k + 4 * torch.randn(heads, hd, generator=generator)
    k = k / k.square().mean(-1, keepdim=True).sqrt()
    v = v + 3 * torch.randn(heads, hd, generator=generator)
    return q.to(DEVICE, dtype), k.to(DEVICE, dtype), v.to(DEVICE, dtype)


def attention_of(smoothed: Smoothed) -> Tensor:
    """What an exact attention makes of the rounded q, k, v."""
    q, k, v, k_scale, v_scale, v_mean = smoothed
    k, v = (x.double() * scale[:, None, :, None] for x, scale in ((k, k_scale), (v, v_scale)))
    out = joint_attention_reference(q.double(), k, v)
    return out + v_mean.flatten(1)[:, None]


def test_centring_keeps_the_attention() -> None:
    q, k, v = qkv(300, 2, 64, torch.float32)
    exact = joint_attention_reference(*(x.double() for x in (q, k, v)))
    plain = joint_attention_reference(*(x.to(E4M3).double() for x in (q, k, v)))

    def error(out: Tensor) -> float:
        return float((out - exact).norm() / (exact - v.double().mean(1).flatten(1)).norm())

    assert error(attention_of(smooth_reference(q, k, v))) < 0.5 * error(plain)
    assert error(attention_of(smooth_reference(q, k, v))) < 0.15


@pytest.mark.parametrize("one_scale", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "heads", "hd", "b"), [(1, 1, 16, 1), (130, 3, 24, 2), (2055, 1, 32, 1)])
def test_the_kernel_is_the_reference(
    tokens: int, heads: int, hd: int, b: int, dtype: torch.dtype, one_scale: bool
) -> None:
    """Also where q, k and v lie side by side in one tensor, as a linear layer leaves them."""
    q, k, v = qkv(tokens, heads, hd, dtype, b)
    joint = torch.stack((q, k, v), dim=2)
    got = smooth(*joint.unbind(2), one_scale=one_scale)
    expected = smooth_reference(q.double(), k.double(), v.double(), one_scale=one_scale)
    torch.testing.assert_close(got.v_mean.double(), expected.v_mean.double(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.v_scale.double(), expected.v_scale.double(), atol=0, rtol=1e-6)
    torch.testing.assert_close(got.k_scale.double(), expected.k_scale.double(), atol=0, rtol=1e-6)
    for mine, other in zip(got[:3], expected[:3], strict=True):
        assert mine.dtype == E4M3
        assert mine.is_contiguous()
        apart = (mine.double() - other.double()).abs()
        if DEVICE.type == "cpu":  # Triton's interpreter rounds halves up and loses a carry: 2^n is 2^(n-1)
            apart[2 * mine.double() == other.double()] = 0
        else:  # a value near the middle may round the other way
            assert (apart > 0).double().mean() < 0.01
        assert (apart <= 0.13 * other.double().abs() + 2**-9).all()


@pytest.mark.parametrize("fault", ["zeros", "rows off by one", "no scale of k", "no scale of v"])
def test_faults_are_noticed(fault: str) -> None:
    q, k, v = qkv(130, 2, 32, torch.float32)
    right = smooth_reference(q, k, v)
    wrong = {
        "zeros": right._replace(k=torch.zeros_like(right.k)),
        "rows off by one": right._replace(q=right.q.float().roll(1, 1).to(E4M3)),
        "no scale of k": right._replace(k_scale=torch.ones_like(right.k_scale)),
        "no scale of v": right._replace(v_scale=torch.ones_like(right.v_scale)),
    }[fault]
    exact = joint_attention_reference(*(x.double() for x in (q, k, v)))
    spread = (exact - v.double().mean(1).flatten(1)).norm()
    assert (attention_of(right) - exact).norm() < 0.2 * spread
    assert (attention_of(wrong) - exact).norm() > 0.5 * spread


def test_what_does_not_fit_is_named() -> None:
    q, k, v = qkv(8, 2, 16, torch.float32)
    with pytest.raises(ValueError, match="expected three alike"):
        smooth(q, k[:, :4], v)
    with pytest.raises(ValueError, match="not contiguous"):
        smooth(q, k, v.transpose(2, 3).contiguous().transpose(2, 3))
