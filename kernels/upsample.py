"""Nearest-neighbour upsampling, then replication padding: every output pixel is a copy of one input pixel.

x [B, C, T, H, W]; factor (T, H, W), each 1 or 2; pad as in F.pad: (W, W, H, H, T, T). The first frame grows
in space only: T frames become 2T - 1. With factor (1, 1, 1) it is the padding alone.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample_pad_reference(x: Tensor, factor: Sequence[int], pad: Sequence[int]) -> Tensor:
    time, height, width = factor
    if height > 1 or width > 1:
        x = F.interpolate(x, scale_factor=(1.0, float(height), float(width)), mode="nearest")
    if time > 1 and x.shape[2] > 1:
        x = torch.cat((x[:, :, :1], x[:, :, 1:].repeat_interleave(time, dim=2)), dim=2)
    return F.pad(x, tuple(pad), mode="replicate") if any(pad) else x


def upsampled_shape(shape: Sequence[int], factor: Sequence[int], pad: Sequence[int]) -> list[int]:
    """[B, C, T, H, W] after upsampling and padding."""
    (b, c, t, h, w), (time, height, width) = shape, factor
    left, right, top, bottom, front, back = pad
    frames = time * (t - 1) + 1 + front + back
    return [b, c, frames, height * h + top + bottom, width * w + left + right]
