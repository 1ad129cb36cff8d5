import pytest
import torch
from torch import Tensor

from hyvideo_rt.kernels.attention import (
    frame_causal_attention_reference,
    joint_attention_reference,
    joint_attention_spelt_out,
)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(hd)) v in fp64; allowed [B, L, L]."""
    q, k, v = (x.double() for x in (q, k, v))
    scores = torch.einsum("blnh,bmnh->bnlm", q, k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~allowed[:, None], -torch.inf).softmax(-1)
    return torch.einsum("bnlm,bmnh->blnh", weights, v).flatten(2).float()


def qkv(b: int, tokens: int, heads: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, b, tokens, heads, dim, generator=generator)
    return q, k, v


@pytest.mark.parametrize("valid", [None, [5, 9]])
def test_joint_attention(valid: list[int] | None) -> None:
    q, k, v = qkv(2, 9, 3, 8)
    counts = torch.tensor(valid or [9, 9])
    allowed = (torch.arange(9) < counts[:, None])[:, None].expand(2, 9, 9)
    for attention in (joint_attention_reference, joint_attention_spelt_out):
        got = attention(q, k, v, None if valid is None else counts)
        torch.testing.assert_close(got, plain_attention(q, k, v, allowed), atol=1e-6, rtol=0)


def test_padding_reaches_no_token() -> None:
    q, k, v = qkv(1, 9, 3, 8)
    counts = torch.tensor([6])
    before = joint_attention_reference(q, k, v, counts)
    k[:, 6:], v[:, 6:] = 1e4, -1e4
    assert torch.equal(joint_attention_reference(q, k, v, counts), before)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_frame_causal_attention(frames: int) -> None:
    q, k, v = qkv(2, 12, 1, 8)
    frame = torch.arange(12) // (12 // frames)
    allowed = (frame[None, :] <= frame[:, None]).expand(2, 12, 12)
    got = frame_causal_attention_reference(q, k, v, frames)
    torch.testing.assert_close(got, plain_attention(q, k, v, allowed), atol=1e-6, rtol=0)
