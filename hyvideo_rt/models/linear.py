"""Linear layers whose weight rests in another form: in 8 bits, or transposed as engines want it."""

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


class TransposedLinear(nn.Module):
    """``y = x W + b`` with W [in, out]: TensorRT reads a weight that is an input in this layout only."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.empty(out_features))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def transpose_linears(skeleton: nn.Module) -> None:
    """Every nn.Linear of a module that holds no values yet becomes a TransposedLinear, under its own name."""
    for parent in [*skeleton.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, TransposedLinear(child.in_features, child.out_features))


@torch.no_grad()
def lay_transposed(module: nn.Module) -> None:
    """Lay every linear weight out [in, out] in memory; the module sees what it saw, by other strides."""
    for each in module.modules():
        if isinstance(each, nn.Linear):
            each.weight.data = each.weight.data.t().contiguous().t()
