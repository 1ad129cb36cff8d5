from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from hyvideo_rt.kernels.fp8 import E4M3
from hyvideo_rt.kernels.modulate import layer_norm_modulate_reference
from hyvideo_rt.kernels.quantise import (
    Rows,
    gelu_beside_rows_reference,
    gelu_rows_reference,
    layer_norm_modulate_rows_reference,
    quantise_rows_reference,
    quantise_tensor_reference,
    rows_linear_reference,
)


def equal(a: Rows, b: Rows) -> bool:
    return torch.equal(a.values.view(torch.uint8), b.values.view(torch.uint8)) and torch.equal(
        a.scale, b.scale
    )


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1.0625, 1.0),  # halfway between 1 and 1.125: to the even one
        (1.1875, 1.25),
        (-1.9375, -2.0),
        (447.0, 448.0),
        (2**-9, 2**-9),  # the smallest
        (2**-10, 0.0),
        (3 * 2**-10, 2**-8),
    ],
)
def test_rounding(value: float, rounded: float) -> None:
    rows = quantise_rows_reference(torch.tensor([[[448.0, value]]]))
    assert rows.scale.item() == 1
    assert rows.values.dtype == E4M3
    assert rows.values[0, 0].tolist() == [448, rounded]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_value_is_off_by_half_a_step_at_most(dtype: torch.dtype) -> None:
    x = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    for rows in (quantise_rows_reference(x), quantise_tensor_reference(x)):
        assert rows.values.float().abs().amax() == 448
        error = (rows.values.double() * rows.scale - x.double()).abs()
        smallest_half_step = 2**-10 * rows.scale
        assert (error <= torch.maximum(x.double().abs() / 16, smallest_half_step) * (1 + 1e-6)).all()


def test_scales() -> None:
    x = torch.tensor([[[3.0, -7.0], [0.0, 0.0]], [[1e-20, 0.0], [1.0, 2.0]]])
    rows = quantise_rows_reference(x)
    expected = torch.tensor([[[7.0], [1e-12]], [[1e-12], [2.0]]]) * (1 / 448)
    assert torch.equal(rows.scale, expected)
    assert torch.equal(rows.values[0, 1].float(), torch.zeros(2))
    assert torch.equal(quantise_tensor_reference(x).scale, expected[:1, :1])


def test_compositions() -> None:
    generator = torch.Generator().manual_seed(0)
    x, attn = torch.randn(2, 2, 5, 16, generator=generator).bfloat16()
    shift, scale = torch.randn(2, 2, 16, generator=generator).bfloat16()
    normed = layer_norm_modulate_reference(x, shift, scale)
    gelu = F.gelu(x, approximate="tanh")
    assert equal(layer_norm_modulate_rows_reference(x, shift, scale), quantise_rows_reference(normed))
    assert equal(gelu_rows_reference(x), quantise_rows_reference(gelu))
    beside = quantise_rows_reference(torch.cat((attn, gelu), dim=-1))
    assert equal(gelu_beside_rows_reference(attn, x), beside)


@pytest.mark.parametrize("quantise", [quantise_rows_reference, quantise_tensor_reference])
def test_linear_is_its_formula(quantise: Callable[[torch.Tensor], Rows]) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = quantise(torch.randn(2, 5, 48, generator=generator))
    weight = (100 * torch.randn(7, 48, generator=generator)).to(E4M3)
    scale, bias = torch.rand(7, generator=generator), torch.randn(7, generator=generator)
    wide = weight.double() * scale.double()[:, None]
    exact = (rows.values.double() * rows.scale.double()) @ wide.t() + bias.double()
    out = rows_linear_reference(rows, weight, scale, bias)
    torch.testing.assert_close(out.double(), exact, atol=1e-4, rtol=0)
