"""Softmax attention: over the joint image-text stream of the DiT, and causal by frame for the VAE.

q, k, v [B, L, nh, hd] fp32, fp16 or bf16; scale 1 / sqrt(hd); out [B, L, nh * hd] like q.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hyvideo_rt.kernels.fp8 import E4M3_MAX, round_e4m3

MASKED = -30000.0


def joint_attention_reference(q: Tensor, k: Tensor, v: Tensor, valid_tokens: Tensor | None = None) -> Tensor:
    """Every token attends to the first ``valid_tokens[b]`` keys of its sample (int [B]); None means to all.

    Padding sits behind the valid text, so a count says all that a mask would; without it the fast unmasked
    path is taken. Rows of padded queries hold values that nothing may read.
    """
    mask = None
    if valid_tokens is not None:
        mask = (torch.arange(k.shape[1], device=k.device) < valid_tokens[:, None])[:, None, None]
    return _attend(q, k, v, mask)


def joint_attention_spelt_out(q: Tensor, k: Tensor, v: Tensor, valid_tokens: Tensor | None) -> Tensor:
    """The same as two matrix products and a softmax, for graphs: engine builders fuse them again."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    out: Tensor = _without_padding(scores, valid_tokens).softmax(-1) @ v
    return out.transpose(1, 2).flatten(2)


def joint_attention_fp8(q: Tensor, k: Tensor, v: Tensor, valid_tokens: Tensor | None) -> Tensor:
    """`joint_attention_spelt_out` with both products in E4M3.

    q and k are normalised and v is near 1, so they need no scale; probabilities are spread over all of E4M3.
    Keys and values are centred first, which changes nothing but the rounding: see `kernels.smooth`.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v_mean = k - _mean(k, valid_tokens), _mean(v, valid_tokens)
    scores = round_e4m3(q * q.shape[-1] ** -0.5) @ round_e4m3(k).transpose(-1, -2)
    probabilities = _without_padding(scores, valid_tokens).softmax(-1)
    out: Tensor = (round_e4m3(probabilities * E4M3_MAX) * (1 / E4M3_MAX)) @ round_e4m3(v - v_mean) + v_mean
    return out.transpose(1, 2).flatten(2)


def frame_causal_attention_reference(q: Tensor, k: Tensor, v: Tensor, frames: int) -> Tensor:
    """Tokens lie frame by frame; those of frame i attend to the tokens of frames 0 to i.

    One unmasked call per frame: half the arithmetic of a mask and no L x L tensor (17408 x 17408 at a full
    VAE tile).
    """
    per_frame = q.shape[1] // frames
    ends = range(per_frame, q.shape[1] + 1, per_frame)
    rows = [_attend(q[:, end - per_frame : end], k[:, :end], v[:, :end], None) for end in ends]
    return torch.cat(rows, dim=1)


def _mean(x: Tensor, valid_tokens: Tensor | None) -> Tensor:
    """Over the valid tokens: [B, nh, L, hd] to [B, nh, 1, hd]."""
    if valid_tokens is None:
        return x.mean(dim=2, keepdim=True)
    count = valid_tokens[:, None, None, None]
    valid = torch.arange(x.shape[2], device=x.device)[:, None] < count
    acc = torch.promote_types(x.dtype, torch.float32)
    total = (x * valid.to(x.dtype)).sum(dim=2, keepdim=True, dtype=acc)
    return (total / count.to(acc)).to(x.dtype)


def _without_padding(scores: Tensor, valid_tokens: Tensor | None) -> Tensor:
    """Masked by adding, which costs a fused kernel nothing; MASKED is far below any score, and fits fp16."""
    if valid_tokens is None:
        return scores
    padding = torch.arange(scores.shape[-1], device=scores.device) >= valid_tokens[:, None]
    return scores + MASKED * padding[:, None, None].to(scores.dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
