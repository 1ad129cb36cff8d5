"""q, k and v in E4M3 for attention: k and v centred first, which costs nothing and saves the picture.

A key that all tokens share moves every score of a row alike, and softmax does not see it; a value that all
tokens share comes out as it went in, and is added again afterwards. What is left has no outliers per channel,
and rounding errors that average out over the keys. (Centred keys: SageAttention, arXiv 2410.02367.)

q, k, v [B, L, nh, hd] bf16; q normalised, so that E4M3 holds it without a scale (at most 448).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hyvideo_rt.kernels.fp8 import E4M3, E4M3_MAX

SMALLEST_SCALE = 1e-12


class Smoothed(NamedTuple):
    """q, ``k / k_scale`` and ``(v - v_mean) / v_scale``, k centred as well; nobody needs its mean again.

    q, k, v E4M3 [B, L, nh, hd], contiguous; scales [B, nh] and v_mean [B, nh, hd] fp32.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    k_scale: Tensor
    v_scale: Tensor
    v_mean: Tensor


def smooth_reference(q: Tensor, k: Tensor, v: Tensor, *, one_scale: bool = False) -> Smoothed:
    """A scale is ``2 max|x| / 448`` of each head: a bound for the centred values, had in the same pass.

    With one_scale it is the largest of them for all, where a library takes no more.
    """
    acc = torch.promote_types(q.dtype, torch.float32)
    k_scale, v_scale = (_scale(x.to(acc)) for x in (k, v))
    if one_scale:
        k_scale, v_scale = largest(k_scale), largest(v_scale)
    k_mean, v_mean = (x.to(acc).mean(1) for x in (k, v))
    return Smoothed(
        _round(q.to(acc)),
        _round((k.to(acc) - k_mean[:, None]) / k_scale[:, None, :, None]),
        _round((v.to(acc) - v_mean[:, None]) / v_scale[:, None, :, None]),
        k_scale,
        v_scale,
        v_mean,
    )


def largest(x: Tensor) -> Tensor:
    """Everywhere in x's shape."""
    return x.amax().expand_as(x).contiguous()


def _scale(x: Tensor) -> Tensor:
    return x.abs().amax(dim=(1, 3)).clamp(min=SMALLEST_SCALE) * (2 / E4M3_MAX)


def _round(x: Tensor) -> Tensor:
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(E4M3)
