"""What other libraries' kernels compute, in plain torch: for videos where the kernels do not run."""

import torch
import torch.nn.functional as F
from torch import Tensor

QUERIES, KEYS = 128, 64  # that share a scale


def sage_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """SageAttention 1.0.6: q and centred k in INT8, a scale per block of tokens; the rest in fp16.

    q, k, v [B, L, nh, hd]; out [B, L, nh * hd] like q.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k = k - k.mean(dim=2, keepdim=True)
    q_int8, q_scale = int8_by_block(q * q.shape[-1] ** -0.5, QUERIES)
    k_int8, k_scale = int8_by_block(k, KEYS)
    scores = (q_int8 @ k_int8.transpose(-1, -2)) * q_scale * k_scale.transpose(-1, -2)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    out = weights.half().float() @ v.half().float() / weights.sum(-1, keepdim=True)
    return out.to(q.dtype).transpose(1, 2).flatten(2)


def int8_by_block(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """x [B, nh, L, hd] to whole numbers of fp32, halves away from zero, and their scales [B, nh, L, 1]."""
    tokens, x = x.shape[2], x.float()
    blocks = F.pad(x, (0, 0, 0, -tokens % size)).unflatten(2, (-1, size))
    scale = (blocks.abs().amax(dim=(-2, -1), keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    scale = scale.expand(-1, -1, -1, size, 1).flatten(2, 3)[:, :, :tokens]
    return (x / scale + 0.5 * x.sign()).trunc(), scale
