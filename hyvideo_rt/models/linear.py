"""A linear layer whose weight rests in 8 bits, as in the original's fp8 checkpoint."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fp8Linear(nn.Module):
    """``y = x (scale * W)^T + b``: W [out, in] E4M3 with one fp32 scale, widened to x's dtype at each call.

    Weight-only: it saves memory, not time.
    """

    scale: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        weight = torch.empty(out_features, in_features, dtype=torch.float8_e4m3fn)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features))
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, dequantise_e4m3(self.weight, self.scale, x.dtype), self.bias)


def dequantise_e4m3(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """weight [out, in] E4M3, scale [1]; both widened to `dtype`, then multiplied, as the original does."""
    return weight.to(dtype).mul_(scale.to(dtype))
