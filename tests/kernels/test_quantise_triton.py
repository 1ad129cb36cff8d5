"""The kernels against the references; under Triton's interpreter where there is no GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle import DEVICE, assert_close_to_oracle
from torch import Tensor

from hyvideo_rt.kernels import quantise as references
from hyvideo_rt.kernels import quantise_triton as kernels
from hyvideo_rt.kernels.fp8 import E4M3, E4M3_MAX
from hyvideo_rt.kernels.modulate import layer_norm_modulate_reference
from hyvideo_rt.kernels.quantise import Rows

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
WIDTHS = [2, 37, 48, 64]


@pytest.fixture(autouse=True)
def rounding_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.9's interpreter truncates to bf16, and in E4M3 rounds 1.9375 to 1: let torch cast instead."""
    if DEVICE.type == "cuda":
        return
    from triton.runtime import interpreter

    plain, casts = interpreter._convert_float, {"bf16": torch.bfloat16, "fp8e4nv": E4M3}

    def convert(data: Any, source: Any, target: Any, rounding: Any) -> Any:
        if source.name != "fp32" or target.name not in casts:
            return plain(data, source, target, rounding)
        rounded = torch.from_numpy(np.array(data)).to(casts[target.name])
        return rounded.view(torch.uint8 if target.name == "fp8e4nv" else torch.uint16).numpy()

    monkeypatch.setattr(interpreter, "_convert_float", convert)


@dataclass(frozen=True)
class Case:
    """What is quantised (`produce`, of inputs in any dtype), and inputs as the model passes them: views."""

    name: str
    produce: Callable[..., Tensor]
    inputs: Callable[[int, int, int, torch.dtype], tuple[Tensor, ...]]

    @property
    def kernel(self) -> Callable[..., Rows]:
        kernel: Callable[..., Rows] = getattr(kernels, self.name)
        return kernel

    @property
    def reference(self) -> Callable[..., Rows]:
        reference: Callable[..., Rows] = getattr(references, self.name + "_reference")
        return reference


def normal(*shape: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator(DEVICE).manual_seed(0)
    return torch.randn(*shape, generator=generator, device=DEVICE, dtype=dtype)


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def strided(batch: int, tokens: int, width: int, dtype: torch.dtype) -> tuple[Tensor]:
    return (normal(batch, tokens + 2, width + 16, dtype=dtype).mul_(3)[:, 1:-1, 16:],)


def modulated(batch: int, tokens: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    shift, scale = normal(batch, 6, width, dtype=dtype).unbind(1)[3:5]
    return strided(batch, tokens, width, dtype)[0].add_(1), shift, scale


def beside(batch: int, tokens: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    joint = normal(batch, tokens, 7 * width, dtype=dtype).mul_(3)
    return joint[..., :width].contiguous(), joint[..., 3 * width :]


ROWS = Case("quantise_rows", lambda x: x, strided)
TENSOR = Case("quantise_tensor", lambda x: x, strided)
GELU = Case("gelu_rows", gelu, strided)
BESIDE = Case("gelu_beside_rows", lambda attn, mlp: torch.cat((attn, gelu(mlp)), dim=-1), beside)
NORM = Case("layer_norm_modulate_rows", layer_norm_modulate_reference, modulated)
CASES = [ROWS, TENSOR, GELU, BESIDE, NORM]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))


def widened(rows: Rows) -> Tensor:
    return rows.values.float() * rows.scale


def assert_rounded(rows: Rows, exact: Tensor, dtype: torch.dtype) -> None:
    """Every value is `exact`, fp64, rounded to dtype and then to E4M3, but for arithmetic in fp32."""
    fp32 = 16 * torch.finfo(torch.float32).eps
    half_unit = torch.finfo(dtype).eps / 2 if dtype != torch.float32 else 0.0
    whole = rows.scale.numel() == 1
    largest = exact.abs().amax().view(1, 1, 1) if whole else exact.abs().amax(dim=-1, keepdim=True)
    assert ((rows.scale * E4M3_MAX - largest).abs() <= (half_unit + fp32) * largest).all()
    scaled = exact / rows.scale
    step = torch.exp2(scaled.abs().mul(1 + half_unit).log2().floor().clamp(min=-6) - 3)
    error = (rows.values.double() - scaled).abs()
    assert (error <= step / 2 + half_unit * scaled.abs() + fp32 * E4M3_MAX).all()


def assert_equal(rows: Rows, reference: Rows) -> None:
    """To the bit, but for the sign of zero."""
    assert torch.equal(rows.scale, reference.scale)
    assert torch.equal(rows.values.float(), reference.values.float())


@each_case
@each_dtype
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("width", WIDTHS)
def test_kernel(case: Case, dtype: torch.dtype, batch: int, width: int) -> None:
    inputs = case.inputs(batch, 5, width, dtype)
    rows, reference = case.kernel(*inputs), case.reference(*inputs)
    exact = case.produce(*(t.double() for t in inputs))
    assert rows.values.dtype == E4M3
    assert rows.values.shape == exact.shape
    assert rows.scale.shape == reference.scale.shape
    assert_rounded(rows, exact, dtype)
    assert_close_to_oracle(widened(rows), widened(reference), exact)
    if case in (ROWS, TENSOR):
        assert_equal(rows, reference)


@each_case
def test_the_widths_of_the_model(case: Case) -> None:
    inputs = case.inputs(1, 2, 3072, torch.bfloat16)
    exact = case.produce(*(t.double() for t in inputs))
    assert_rounded(case.kernel(*inputs), exact, torch.bfloat16)


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": torch.zeros_like,
    "nan": lambda x: torch.full_like(x, torch.nan),
    "one nan": lambda x: torch.where(torch.arange(x.numel()).view(x.shape) == 77, torch.nan, x),
    "halves swapped": lambda x: x.roll(x.shape[-1] // 2, dims=-1),
    "next row": lambda x: x.roll(1, dims=1),
    "other sample": lambda x: x.flip(0),
    "a tenth too large": lambda x: 1.1 * x,
}


@each_case
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_wrong_values_are_seen(case: Case, corruption: str) -> None:
    inputs = case.inputs(2, 5, 48, torch.bfloat16)
    exact = case.produce(*(t.double() for t in inputs))
    reference = case.reference(*inputs)
    assert_rounded(reference, exact, torch.bfloat16)
    wrong = CORRUPTIONS[corruption](reference.values.float().cpu()).to(E4M3).to(DEVICE)
    with pytest.raises(AssertionError):
        assert_rounded(Rows(wrong, reference.scale), exact, torch.bfloat16)
    if corruption != "a tenth too large":  # within E4M3's own error
        with pytest.raises(AssertionError):
            assert_close_to_oracle(widened(Rows(wrong, reference.scale)), widened(reference), exact)


@pytest.mark.parametrize("factor", [0.0, torch.nan, 1.02])
def test_wrong_scales_are_seen(factor: float) -> None:
    (x,) = strided(2, 5, 48, torch.bfloat16)
    reference = references.quantise_rows_reference(x)
    with pytest.raises(AssertionError):
        assert_rounded(Rows(reference.values, reference.scale * factor), x.double(), torch.bfloat16)


def numbers_and_ties() -> Tensor:
    """A row of all that E4M3 has, what lies halfway between two of them, and fp32's neighbours of that."""
    codes = torch.arange(256, dtype=torch.uint8).view(E4M3).float()
    numbers = codes[codes.isfinite()].unique()
    ties = (numbers[1:] + numbers[:-1]) / 2
    up, down = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    row = torch.cat((numbers, ties, ties.nextafter(up), ties.nextafter(down)))
    return row.expand(2, 1, -1).to(DEVICE)


@pytest.mark.gpu  # whose cast is asked about: without one it is torch's own, see above
def test_the_hardware_rounds_to_nearest_even() -> None:
    test_numbers_and_ties()


def test_numbers_and_ties() -> None:
    x = numbers_and_ties()
    for kernel in (kernels.quantise_rows, kernels.quantise_tensor):
        rows = kernel(x)
        assert (rows.scale == 1).all()
        assert torch.equal(rows.values.float(), x.to(E4M3).float())


@each_dtype
@pytest.mark.parametrize("size", [1e-30, 1e-11, 1e-3, 1e4])
def test_rows_of_all_sizes(dtype: torch.dtype, size: float) -> None:
    x = (size * normal(1, 40, 64, dtype=torch.float32)).to(dtype)
    assert_equal(kernels.quantise_rows(x), references.quantise_rows_reference(x))


def test_a_row_of_zeros_has_a_scale() -> None:
    x = torch.zeros(1, 3, 16, device=DEVICE)
    x[0, 1] = 1
    rows = kernels.quantise_rows(x)
    assert_equal(rows, references.quantise_rows_reference(x))
    assert torch.equal(widened(rows)[0, 0], torch.zeros(16, device=DEVICE))


@each_case
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_is_not_lost(case: Case, value: float) -> None:
    inputs = case.inputs(1, 3, 16, torch.bfloat16)
    inputs[0][0, 1, 5] = value
    assert widened(case.kernel(*inputs))[0, 1].isnan().any()


def test_gelu_far_from_zero() -> None:
    x = torch.tensor([[[-3e38, -1e4, -30.0, -6.0, -1e-30, 0.0, 1e-30, 6.0, 30.0, 448.0]]], device=DEVICE)
    rows = kernels.gelu_rows(x)
    assert rows.scale.item() == 1
    assert rows.values[0, 0].float().tolist() == [0, 0, 0, 0, 0, 0, 0, 6, 30, 448]


X = torch.zeros(2, 3, 16)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("quantise_rows", (X[0],), r"x is \[3, 16\], expected \[B, L, K\] with K from 2 to 16384"),
        ("quantise_rows", (torch.zeros(1, 1, 16385),), r"x is \[1, 1, 16385\], expected"),
        ("quantise_tensor", (X[..., :1],), r"x is \[2, 3, 1\], expected"),
        ("gelu_rows", (X[..., ::2],), r"x has strides \(48, 16, 2\), expected a contiguous last"),
        ("gelu_rows", (X.double(),), r"x is torch.float64, expected one of torch.float16, "),
        (
            "gelu_beside_rows",
            (X, X[:1]),
            r"mlp is torch.float32 \[1, 3, 16\], expected torch.float32 \[2, 3,",
        ),
        (
            "gelu_beside_rows",
            (X, X.bfloat16()),
            r"mlp is torch.bfloat16 \[2, 3, 16\], expected torch.float32",
        ),
        ("gelu_beside_rows", (X.mT, X), r"attn has strides \(48, 1, 16\)"),
        (
            "gelu_beside_rows",
            (torch.zeros(1, 1, 8192), torch.zeros(1, 1, 8200)),
            "attn and mlp are 16392 wide together, expected at most 16384",
        ),
        (
            "layer_norm_modulate_rows",
            (X, X[:, 0], X[0]),
            r"scale is \[3, 16\] with strides .* expected \[2, 16\]",
        ),
        (
            "layer_norm_modulate_rows",
            (X, torch.zeros(16, 2).t(), X[:, 0]),
            r"shift is \[2, 16\] with strides \(1,",
        ),
    ],
)
def test_errors(name: str, inputs: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(kernels, name)(*(t.to(DEVICE) for t in inputs))


@each_case
def test_fake_results_are_shaped_like_the_real(case: Case) -> None:
    operator = getattr(torch.ops.hyvideo_rt, case.name).default
    inputs = case.inputs(2, 5, 48, torch.bfloat16)
    torch.library.opcheck(operator, inputs, test_utils=("test_schema", "test_faketensor"))


def nan_in_free_memory(*sizes: int) -> None:
    """Blocks that the next results of these sizes (in bytes) get: 0xFF is NaN in E4M3 and in fp32."""
    for block in [torch.full((size,), 0xFF, dtype=torch.uint8, device=DEVICE) for size in sizes]:
        del block


@pytest.mark.gpu
@each_case
def test_full_size(case: Case) -> None:
    """One video's tokens, 720x1280x129: linear1's output has 2.55e9 elements."""
    tokens, width = 118800, 3072
    inputs = case.inputs(1, tokens, width, torch.bfloat16)
    values = tokens * (5 * width if case is BESIDE else width)
    nan_in_free_memory(values, 4 if case is TENSOR else 4 * tokens)
    rows = case.kernel(*inputs)
    assert not ((rows.values.view(torch.uint8) & 0x7F) == 0x7F).any()
    assert rows.scale.isfinite().all()
    if case in (ROWS, TENSOR):
        assert_equal(rows, case.reference(*inputs))
    sample = torch.cat((torch.arange(0, tokens, 397), torch.tensor([tokens - 1]))).to(DEVICE)
    some = [t[:, sample] if t.ndim == 3 else t for t in inputs]
    exact = case.produce(*(t.double() for t in some))
    got = Rows(rows.values[:, sample], rows.scale if case is TENSOR else rows.scale[:, sample])
    if case is not TENSOR:  # the largest value need not be in the sample
        assert_rounded(got, exact, torch.bfloat16)
        assert_close_to_oracle(widened(got), widened(case.reference(*some)), exact)
