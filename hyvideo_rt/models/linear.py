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
        return F.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype), self.bias)
