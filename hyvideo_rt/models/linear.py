"""Linear layers whose weight rests in another form: in 8 bits, or transposed as engines want it."""

from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyvideo_rt.kernels.fp8 import E4M3, fp8_linear_reference
from hyvideo_rt.kernels.quantise import Rows, quantise_rows_reference, rows_linear_reference


class Fp8Linear(nn.Module):
    """``y = x (scale * W)^T + b``: W [out, in] E4M3, scale [out] fp32, widened to x's dtype at each call.

    Weight-only: it saves memory, not time. The original's checkpoint has one scale for all rows.
    """

    scale: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        weight = torch.empty(out_features, in_features, dtype=E4M3)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features))
        self.register_buffer("scale", torch.ones(out_features))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, dequantise_e4m3(self.weight, self.scale, x.dtype), self.bias)


class ScaledFp8Linear(Fp8Linear):
    """Both sides in E4M3: rows of x by their scales, W by its own. Input Rows or bf16, bias and output bf16.

    Other tensors than Rows are quantised by `quantise`. `use_fast_accum` sums in fewer bits than fp32, 1.3x
    faster on an H100.

    On a CPU it computes as `rows_linear_reference`: not every torch that we allow scales by rows there.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        quantise: Callable[[Tensor], Rows] = quantise_rows_reference,
        use_fast_accum: bool = False,
    ) -> None:
        super().__init__(in_features, out_features)
        self.quantise, self.use_fast_accum = quantise, use_fast_accum

    def forward(self, x: Tensor | Rows) -> Tensor:
        """Rows [B, L, in], or x as `quantise` takes it; out [B, L, out] bf16."""
        rows = x if isinstance(x, Rows) else self.quantise(x)
        if rows.values.device.type == "cpu":
            return rows_linear_reference(rows, self.weight, self.scale, self.bias)
        out: Tensor = torch._scaled_mm(
            rows.values.flatten(0, -2),
            self.weight.t(),
            scale_a=rows.scale.expand(*rows.values.shape[:-1], 1).reshape(-1, 1),
            scale_b=self.scale[None],
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=self.use_fast_accum,
        )
        return out.view(*rows.values.shape[:-1], -1)


def dequantise_e4m3(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """weight [out, in] E4M3, scale [out]; both widened to `dtype`, then multiplied, as the original does."""
    return weight.to(dtype).mul_(scale.to(dtype)[:, None])


class TransposedLinear(nn.Module):
    """``y = x W + b`` with W [in, out]: TensorRT reads a weight that is an input in this layout only."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.empty(out_features))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class TransposedFp8Linear(nn.Module):
    """Both sides in E4M3, W [in, out] with a scale [out]: see `kernels.fp8`. In the order of Fp8Linear."""

    scale: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        weight = torch.empty(in_features, out_features, dtype=E4M3)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features))
        self.register_buffer("scale", torch.ones(out_features))

    def forward(self, x: Tensor) -> Tensor:
        return fp8_linear_reference(x, self.weight, self.scale, self.bias)


def replace_linears(
    skeleton: nn.Module, linear: Callable[[int, int], nn.Module], names: Collection[str]
) -> None:
    """The nn.Linears of these names, in a module that holds no values yet, become other layers."""
    for name in names:
        old = skeleton.get_submodule(name)
        assert isinstance(old, nn.Linear), name
        skeleton.set_submodule(name, linear(old.in_features, old.out_features))


def linear_names(module: nn.Module) -> list[str]:
    return [name for name, child in module.named_modules() if isinstance(child, (nn.Linear, Fp8Linear))]


@torch.no_grad()
def lay_transposed(module: nn.Module) -> None:
    """Lay every linear weight out [in, out] in memory; the module sees what it saw, by other strides."""
    for each in module.modules():
        if isinstance(each, (nn.Linear, Fp8Linear)):
            each.weight.data = each.weight.data.t().contiguous().t()
