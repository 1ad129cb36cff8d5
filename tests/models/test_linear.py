from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hyvideo_rt.kernels.fp8 import fp8_linear_reference
from hyvideo_rt.kernels.quantise import (
    Rows,
    quantise_rows_reference,
    quantise_tensor_reference,
)
from hyvideo_rt.models.linear import Fp8Linear, ScaledFp8Linear
from hyvideo_rt.weights.loading import quantise_e4m3

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def filled(in_features: int, out_features: int, use_fast_accum: bool = False) -> ScaledFp8Linear:
    generator = torch.Generator(DEVICE).manual_seed(0)
    linear = ScaledFp8Linear(in_features, out_features, use_fast_accum=use_fast_accum)
    wide = torch.randn(out_features, in_features, generator=generator, device=DEVICE)
    weight, scale = quantise_e4m3(wide * torch.linspace(0.1, 2, out_features, device=DEVICE)[:, None])
    bias = torch.randn(out_features, generator=generator, device=DEVICE).bfloat16()
    linear.load_state_dict({"weight": weight, "scale": scale, "bias": bias}, assign=True)
    return linear


def activations(batch: int, tokens: int, width: int) -> Tensor:
    generator = torch.Generator(DEVICE).manual_seed(1)
    sizes = torch.logspace(-3, 3, tokens, device=DEVICE)[:, None]
    return (sizes * torch.randn(batch, tokens, width, generator=generator, device=DEVICE)).bfloat16()


def assert_product(out: Tensor, rows: Rows, linear: ScaledFp8Linear, sum_error: float) -> None:
    """The product in fp64, rounded to bf16 before and after the bias, with `sum_error` of |row| |column|."""
    a = rows.values.double() * rows.scale.double()
    w = linear.weight.double() * linear.scale.double()[:, None]
    bias = linear.bias.double()
    exact = a @ w.t() + bias
    norms = a.norm(dim=-1, keepdim=True) * w.norm(dim=-1)
    assert out.dtype == torch.bfloat16
    assert out.shape == exact.shape
    half_unit = torch.finfo(torch.bfloat16).eps / 2
    budget = half_unit * (2 * exact.abs() + bias.abs()) + sum_error * norms
    assert ((out.double() - exact).abs() <= budget).all()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("quantise", [quantise_rows_reference, quantise_tensor_reference])
def test_scaled_fp8_linear(batch: int, quantise: Callable[[Tensor], Rows]) -> None:
    linear, x = filled(48, 32), activations(batch, 7, 48)
    rows = quantise(x)
    out = linear(rows)
    assert_product(out, rows, linear, 1e-4)
    assert torch.equal(linear(x), linear(quantise_rows_reference(x)))


def test_scaled_fp8_linear_is_no_worse_than_the_reference() -> None:
    """Against the product of what was not quantised: E4M3's own error is in both."""
    linear, x = filled(256, 512), activations(2, 5, 256)
    exact = x.double() @ (linear.weight.double() * linear.scale.double()[:, None]).t() + linear.bias.double()
    reference = fp8_linear_reference(x, linear.weight.t(), linear.scale, linear.bias)

    def error(y: Tensor) -> Tensor:
        return (y.double() - exact).square().mean(dim=-1).sqrt()

    assert (error(linear(x)) <= 1.1 * error(reference)).all(), error(linear(x)) / error(reference)
    assert (error(linear(x)) > 0).all()


def test_errors_of_a_product_are_seen() -> None:
    linear, x = filled(48, 32), activations(2, 7, 48)
    rows = quantise_rows_reference(x)
    out = linear(rows)
    for wrong in (
        torch.zeros_like(out),
        out * torch.nan,
        out.roll(1, dims=1),
        out.roll(16, dims=2),
        1.02 * out,
    ):
        with pytest.raises(AssertionError):
            assert_product(wrong, rows, linear, 1e-3)


def test_it_has_the_state_of_fp8_linear() -> None:
    names = {name: (t.shape, t.dtype) for name, t in Fp8Linear(16, 32).state_dict().items()}
    assert {name: (t.shape, t.dtype) for name, t in ScaledFp8Linear(16, 32).state_dict().items()} == names


def test_the_given_function_quantises() -> None:
    linear = ScaledFp8Linear(48, 32, quantise_tensor_reference).to(DEVICE)
    linear.load_state_dict(filled(48, 32).state_dict(), assign=True)
    x = activations(1, 7, 48)
    assert torch.equal(linear(x), linear(quantise_tensor_reference(x)))
    assert not torch.equal(linear(x), linear(quantise_rows_reference(x)))


@pytest.mark.gpu
@pytest.mark.parametrize("use_fast_accum", [False, True])
def test_full_size(use_fast_accum: bool) -> None:
    """qkv of a double block over 8192 tokens; 118800, like 8184, is no multiple of a tile."""
    linear = filled(3072, 9216, use_fast_accum=use_fast_accum)
    for tokens in (8192, 8184):
        rows = quantise_rows_reference(activations(1, tokens, 3072))
        out = linear(rows)
        some = slice(0, None, 31)
        sample = Rows(rows.values[:, some], rows.scale[:, some])
        assert_product(out[:, some], sample, linear, 1e-3 if use_fast_accum else 1e-4)
