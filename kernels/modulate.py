"""adaLN: ``layer_norm(x) * (1 + scale) + shift``, and its way back: ``x + gate * y``.

x, y [B, L, D] fp32, fp16 or bf16; shift, scale, gate [B, D]; out like x; statistics in fp32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6


def layer_norm_modulate_reference(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    acc = torch.promote_types(x.dtype, torch.float32)  # fp32 for bf16; fp64 stays fp64: the oracle
    normed = F.layer_norm(x.to(acc), x.shape[-1:], eps=EPS)
    return torch.addcmul(shift.to(acc)[:, None], normed, 1 + scale.to(acc)[:, None]).to(x.dtype)


def gate_residual_reference(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    return torch.addcmul(x, gate[:, None], y)


def gate_residual_norm_reference(
    x: Tensor, gate: Tensor, y: Tensor, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The way back of one branch and the way into the next: the sum, and the adaLN of the rounded sum."""
    total = gate_residual_reference(x, gate, y)
    return total, layer_norm_modulate_reference(total, shift, scale)
