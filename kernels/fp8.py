"""Eight bits, E4M3: what a matrix product in them computes.

``y = row * scale * (E4M3(x / row) @ W) + bias`` with ``row = max|x| * (1 / 448)`` of each row of x:
activations are scaled as they come, so nothing has to be calibrated. Rounding is to nearest, ties to even.

`round_e4m3` and `widen_e4m3` are operators of their own for the sake of graphs, where they are the
QuantizeLinear and DequantizeLinear, with scale 1, that TensorRT makes FP8 products of.
"""

import torch
from torch import Tensor

E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0
SMALLEST_ROW = 1e-12  # a row of zeros has no scale


@torch.library.custom_op("hyvideo_rt::round_e4m3", mutates_args=())
def round_e4m3(x: Tensor) -> Tensor:
    """x to the nearest number that E4M3 has, at most 448, in x's dtype."""
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(E4M3).to(x.dtype)


@round_e4m3.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("hyvideo_rt::widen_e4m3", mutates_args=())
def widen_e4m3(weight: Tensor, like: Tensor) -> Tensor:
    """weight, E4M3, in the dtype of `like`."""
    return weight.to(like.dtype)


@widen_e4m3.register_fake
def _(weight: Tensor, like: Tensor) -> Tensor:
    return torch.empty_like(weight, dtype=like.dtype)


def fp8_linear_reference(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """x [..., in], weight [in, out] E4M3, scale [out] fp32, bias [out]; out [..., out] like x."""
    acc = torch.promote_types(x.dtype, torch.float32)
    row = x.abs().amax(dim=-1, keepdim=True).to(acc).clamp(min=SMALLEST_ROW) * (1 / E4M3_MAX)
    product = round_e4m3((x.to(acc) / row).to(x.dtype)) @ widen_e4m3(weight, x)
    out: Tensor = (product.to(acc) * (row * scale.to(acc))).to(x.dtype) + bias
    return out
