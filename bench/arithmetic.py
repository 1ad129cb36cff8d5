"""What other libraries' kernels compute, in plain torch: for videos where the kernels do not run."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hyvideo_rt.kernels.cudnn_fp8 import PROBABILITY_SCALE
from hyvideo_rt.kernels.fp8 import round_e4m3
from hyvideo_rt.kernels.smooth import smooth_reference

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


def cudnn_fp8_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`kernels.cudnn_fp8`: q, k, v, the probabilities and the output in E4M3, sums in fp32.

    q, k, v [B, L, nh, hd]; out [B, L, nh * hd] like q.
    """
    q8, k8, v8, k_scale, v_scale, v_mean = smooth_reference(q, k, v, one_scale=True)
    q32, k32, v32 = (x.float().transpose(1, 2) for x in (q8, k8, v8))
    scores = q32 @ k32.transpose(-1, -2) * (q.shape[-1] ** -0.5 * k_scale[:, :, None, None])
    weights = PROBABILITY_SCALE * (scores - scores.amax(-1, keepdim=True)).exp()
    out: Tensor = round_e4m3(weights) @ v32 / weights.sum(-1, keepdim=True)
    out = round_e4m3(out).transpose(1, 2).to(q.dtype).mul_(v_scale[:, None, :, None])
    return out.add_(v_mean[:, None]).flatten(2)


def int8_by_block(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """x [B, nh, L, hd] to whole numbers of fp32, halves away from zero, and their scales [B, nh, L, 1]."""
    tokens, x = x.shape[2], x.float()
    blocks = F.pad(x, (0, 0, 0, -tokens % size)).unflatten(2, (-1, size))
    scale = (blocks.abs().amax(dim=(-2, -1), keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    scale = scale.expand(-1, -1, -1, size, 1).flatten(2, 3)[:, :, :tokens]
    return (x / scale + 0.5 * x.sign()).trunc(), scale
