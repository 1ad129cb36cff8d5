"""``pad(silu(group_norm(x)))``, what stands in front of nearly every convolution of the VAE.

x [B, C, T, H, W] fp32, fp16 or bf16; weight, bias [C]; groups divides C; pad as in F.pad: (W, W, H, H, T, T).
Borders repeat their last value. out like x, padded; statistics over C / groups channels and all positions.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6


def group_norm_silu_pad_reference(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, pad: Sequence[int]
) -> Tensor:
    out = F.silu(F.group_norm(x, groups, weight, bias, eps=EPS))
    return F.pad(out, tuple(pad), mode="replicate") if any(pad) else out
