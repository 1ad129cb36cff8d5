"""GELU beside the attention in Triton, against the reference in fp64."""

from collections.abc import Callable

import pytest
import torch
from oracle import DEVICE, assert_close_to_oracle
from torch import Tensor

from hyvideo_rt.kernels.gelu import gelu_beside_reference
from hyvideo_rt.kernels.gelu_triton import COLUMNS, gelu_beside


def inputs(b: int, tokens: int, d: int, m: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """mlp is the end of linear1's wider output."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    attn = torch.randn(b, tokens, d, generator=generator, device=DEVICE, dtype=dtype)
    linear1 = torch.randn(b, tokens, 3 * d + m, generator=generator, device=DEVICE, dtype=dtype)
    return attn, (3 * linear1)[..., 3 * d :]


def wide(given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return given[0].double(), given[1].double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("d", "m"), [(1, 1), (40, 24), (192, 768), (40, COLUMNS + 8), (COLUMNS + 8, 40), (3, 2 * COLUMNS)]
)
@pytest.mark.parametrize("b", [1, 2])
def test_close_to_fp64(b: int, d: int, m: int, dtype: torch.dtype) -> None:
    attn, mlp = inputs(b, 3, d, m, dtype)
    out, reference = gelu_beside(attn, mlp), gelu_beside_reference(attn, mlp)
    assert out.dtype == dtype
    assert out.is_contiguous()
    assert torch.equal(out[..., :d], attn)
    assert_close_to_oracle(
        out[..., d:], reference[..., d:], gelu_beside_reference(*wide((attn, mlp)))[..., d:]
    )


def test_strided_attention() -> None:
    attn, mlp = inputs(2, 6, 40, 24, torch.float32)
    assert torch.equal(gelu_beside(attn[:, ::2], mlp[:, ::2]), gelu_beside(attn, mlp)[:, ::2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_from_zero_to_the_ends(dtype: torch.dtype) -> None:
    """Neither tail overflows; far out it is 0 and x."""
    size = torch.logspace(-6, 4.5, 200, device=DEVICE, dtype=torch.float64).to(dtype)
    most = torch.tensor([torch.finfo(dtype).max], device=DEVICE, dtype=dtype)
    mlp = torch.cat((-most, -size, torch.zeros_like(most), size, most))[None, None]
    given = mlp[..., :1], mlp
    out, oracle = gelu_beside(*given)[0, 0, 1:], gelu_beside_reference(*wide(given))[0, 0, 1:]
    assert (out[0], out[-1]) == (0, most)
    cancelled = torch.finfo(torch.float32).eps * mlp[0, 0].double().abs()  # in 1 + tanh(u)
    rounding = torch.finfo(dtype).eps * oracle.abs() + torch.finfo(dtype).tiny
    assert ((out - oracle).abs() <= cancelled + rounding).all()


def test_nan_stays_nan() -> None:
    attn, mlp = inputs(1, 3, 40, 24, torch.float32)
    mlp[0, 1, 5] = torch.nan
    assert gelu_beside(attn, mlp).isnan().nonzero().tolist() == [[0, 1, 45]]


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": torch.zeros_like,
    "one nan": lambda x: x.index_fill(1, torch.tensor([2], device=x.device), torch.nan),
    "halves swapped": lambda x: x.roll(x.shape[-1] // 2, dims=-1),
    "one row off": lambda x: x.roll(1, dims=1),
    "one column off": lambda x: x.roll(1, dims=-1),
    "samples swapped": lambda x: x.flip(0),
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_wrong_result_is_seen(corrupt: Callable[[Tensor], Tensor]) -> None:
    given = inputs(2, 5, 40, 192, torch.bfloat16)
    reference, oracle = gelu_beside_reference(*given), gelu_beside_reference(*wide(given))
    with pytest.raises(AssertionError):
        assert_close_to_oracle(corrupt(reference), reference, oracle)


def test_the_other_gelu_is_seen() -> None:
    attn, mlp = inputs(2, 5, 40, 192, torch.float32)
    oracle = gelu_beside_reference(*wide((attn, mlp)))
    exact = torch.cat((attn, torch.nn.functional.gelu(mlp)), dim=-1)
    with pytest.raises(AssertionError):
        assert_close_to_oracle(exact, gelu_beside_reference(attn, mlp), oracle)


MISFITS: list[tuple[int, Callable[[Tensor], Tensor], str]] = [
    (0, lambda attn: attn[0], r"attn is \[3, 40\], expected three dimensions"),
    (1, lambda mlp: mlp[0], r"mlp is \[3, 24\], expected three dimensions"),
    (0, lambda attn: attn.double(), r"attn is torch.float64, expected one of torch.float32"),
    (0, lambda attn: attn[..., ::2], r"attn has stride 2 in its last dimension, expected 1"),
    (1, lambda mlp: mlp[..., ::2], r"mlp has stride 2 in its last dimension, expected 1"),
    (1, lambda mlp: mlp[:, 1:], r"mlp is torch.float32 \[2, 2, 24\], expected torch.float32 \[2, 3, 24\]"),
    (1, lambda mlp: mlp.half(), r"mlp is torch.float16 \[2, 3, 24\], expected torch.float32"),
]


@pytest.mark.parametrize(("at", "change", "message"), MISFITS)
def test_arguments_that_do_not_fit(at: int, change: Callable[[Tensor], Tensor], message: str) -> None:
    given = list(inputs(2, 3, 40, 24, torch.float32))
    given[at] = change(given[at])
    with pytest.raises(ValueError, match=message):
        gelu_beside(*given)


def test_the_compiler_is_told_the_truth() -> None:
    torch.library.opcheck(gelu_beside, inputs(2, 3, 40, 24, torch.bfloat16))


@pytest.mark.gpu
def test_full_size() -> None:
    """118,800 rows of linear1's output are 2.55e9 elements, above 2^31; into memory that held NaN."""
    tokens, d, m = 118_800, 3072, 12_288
    attn = torch.randn(1, tokens, d, dtype=torch.bfloat16, device=DEVICE)
    mlp = torch.randn(1, tokens, 3 * d + m, dtype=torch.bfloat16, device=DEVICE)[..., 3 * d :]
    poison = torch.full((1, tokens, d + m), torch.nan, dtype=torch.bfloat16, device=DEVICE)
    del poison
    out = gelu_beside(attn, mlp)
    assert not out.isnan().any()
    past = 2**31 // (3 * d + m)  # the row in which the input passes 2^31
    rows = torch.tensor([0, 1, past - 1, past, past + 1, tokens - 1], device=DEVICE)
    sample = attn[:, rows], mlp[:, rows]
    assert_close_to_oracle(out[:, rows], gelu_beside_reference(*sample), gelu_beside_reference(*wide(sample)))
