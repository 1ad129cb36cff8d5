"""Activations in E4M3, fused behind what produces them: ``values * scale ~ x``, a scale for each row.

``scale = max(max|row|, 1e-12) * (1 / 448)`` and ``values = x / scale``, in fp32; to nearest, ties to even.
Times 1 / 448, not over 448: so torch divides by a number on a GPU, and the scales shall be equal everywhere.
fp64 stays fp64: the oracle.

x [B, L, K], attn [B, L, D], mlp [B, L, M] fp16, bf16 or fp32; shift, scale [B, K]. What a producer computes
is first rounded to x's dtype, so that fused and unfused agree.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hyvideo_rt.kernels.fp8 import E4M3, E4M3_MAX, SMALLEST_ROW
from hyvideo_rt.kernels.gelu import gelu_beside_reference, gelu_reference
from hyvideo_rt.kernels.modulate import layer_norm_modulate_reference


class Rows(NamedTuple):
    """``values * scale``: values E4M3 [B, L, K]; scale fp32 [B, L, 1], or [1, 1, 1] for a whole tensor."""

    values: Tensor
    scale: Tensor


def quantise_rows_reference(x: Tensor) -> Rows:
    return _quantise(x, x.abs().amax(dim=-1, keepdim=True))


def quantise_tensor_reference(x: Tensor) -> Rows:
    return _quantise(x, x.abs().amax().view(1, 1, 1))


def layer_norm_modulate_rows_reference(x: Tensor, shift: Tensor, scale: Tensor) -> Rows:
    return quantise_rows_reference(layer_norm_modulate_reference(x, shift, scale))


def gelu_rows_reference(x: Tensor) -> Rows:
    """tanh GELU, as in the MLPs of the DiT."""
    return quantise_rows_reference(gelu_reference(x))


def gelu_beside_rows_reference(attn: Tensor, mlp: Tensor) -> Rows:
    """``[attn ; gelu(mlp)]``, the input of a single block's linear2: values [B, L, D + M]."""
    return quantise_rows_reference(gelu_beside_reference(attn, mlp))


def rows_linear_reference(rows: Rows, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """rows [B, L, in], weight [out, in] E4M3, scale [out] fp32, bias [out]; out [B, L, out] like bias.

    In the scale's dtype inside and one rounding at the end.
    """
    acc = rows.scale.dtype
    product = rows.values.to(acc) @ weight.to(acc).t()
    return (product * rows.scale * scale + bias.to(acc)).to(bias.dtype)


def _quantise(x: Tensor, largest: Tensor) -> Rows:
    acc = torch.promote_types(x.dtype, torch.float32)
    scale = largest.to(acc).clamp(min=SMALLEST_ROW) * (1 / E4M3_MAX)
    return Rows((x.to(acc) / scale).clamp(-E4M3_MAX, E4M3_MAX).to(E4M3), scale)
