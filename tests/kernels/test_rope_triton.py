"""QK-norm and RoPE in Triton, against the reference in fp64."""

from collections.abc import Callable

import pytest
import torch
from oracle import DEVICE, assert_close_to_oracle
from torch import Tensor

from hyvideo_rt.kernels.rope import (
    joint_qkv_reference,
    qk_norm_rope_reference,
    rms_norm_rope_reference,
    rope_table,
)
from hyvideo_rt.kernels.rope_triton import joint_qkv, qk_norm_rope

GRID, IMAGE, TEXT = (2, 1, 3), 6, 3
Tensors = tuple[Tensor, ...]
# nh, hd: the second is the tiny model's, the third fills no block of any size
HEADS = [(2, 128), (3, 64), (5, 12)]


def weights(n: int, hd: int, dtype: torch.dtype, generator: torch.Generator) -> list[Tensor]:
    return [(1 + 0.5 * torch.randn(hd, generator=generator, device=DEVICE)).to(dtype) for _ in range(n)]


def tables(grid: tuple[int, int, int], hd: int) -> Tensors:
    """Of all three axes; the first has the odd end of hd."""
    axis = hd // 6 * 2
    return tuple(table.to(DEVICE) for table in rope_table(grid, (hd - 2 * axis, axis, axis), 256.0))


def single_inputs(
    b: int, heads: int, hd: int, dtype: torch.dtype, grid: tuple[int, int, int] = GRID, text: int = TEXT
) -> Tensors:
    """qkv is the front of linear1's wider output."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    tokens = grid[0] * grid[1] * grid[2] + text
    wide = 7 * heads * hd
    linear1 = torch.randn(b, tokens, wide, generator=generator, device=DEVICE, dtype=dtype)
    qkv = linear1[..., : 3 * heads * hd].unflatten(-1, (3, heads, hd))
    return qkv, *weights(2, hd, dtype, generator), *tables(grid, hd)


def joint_inputs(
    b: int, heads: int, hd: int, dtype: torch.dtype, grid: tuple[int, int, int] = GRID, text: int = TEXT
) -> Tensors:
    generator = torch.Generator(DEVICE).manual_seed(0)
    tokens = grid[0] * grid[1] * grid[2]
    img, txt = (
        torch.randn(b, n, 3, heads, hd, generator=generator, device=DEVICE, dtype=dtype)
        for n in (tokens, text)
    )
    return img, txt, *weights(4, hd, dtype, generator), *tables(grid, hd)


def wide(given: Tensors) -> Tensors:
    """For the oracle; the tables are fp32 in the formula too."""
    return *(tensor.double() for tensor in given[:-2]), *given[-2:]


OPS = {
    "single": (qk_norm_rope, qk_norm_rope_reference, single_inputs),
    "joint": (joint_qkv, joint_qkv_reference, joint_inputs),
}
each_op = pytest.mark.parametrize(("op", "reference", "inputs"), OPS.values(), ids=OPS)
Op = Callable[..., Tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("b", [1, 2])
@each_op
def test_close_to_fp64(
    op: Op, reference: Op, inputs: Op, b: int, heads: tuple[int, int], dtype: torch.dtype
) -> None:
    given = inputs(b, *heads, dtype)
    for out, same_dtype, oracle in zip(op(*given), reference(*given), reference(*wide(given)), strict=True):
        assert out.dtype == dtype
        assert out.shape == (b, IMAGE + TEXT, *heads)
        assert out.is_contiguous()
        for tokens in (slice(IMAGE), slice(IMAGE, None)):  # each stream with a budget of its own
            assert_close_to_oracle(out[:, tokens], same_dtype[:, tokens], oracle[:, tokens])


def test_without_text_and_with_tables_for_all_tokens() -> None:
    img, txt, *rest = joint_inputs(1, 3, 64, torch.float32)
    for out, oracle in zip(
        joint_qkv(img, txt[:, :0], *rest), joint_qkv_reference(img, txt[:, :0], *rest), strict=True
    ):
        torch.testing.assert_close(out, oracle, atol=1e-5, rtol=0)
    qkv, *rest = single_inputs(1, 3, 64, torch.float32, text=0)
    for out, oracle in zip(qk_norm_rope(qkv, *rest), qk_norm_rope_reference(qkv, *rest), strict=True):
        torch.testing.assert_close(out, oracle, atol=1e-5, rtol=0)


def test_values_are_copied() -> None:
    img, txt, *rest = joint_inputs(2, 3, 64, torch.bfloat16)
    v = joint_qkv(img, txt, *rest)[2]
    assert torch.equal(v, torch.cat((img[:, :, 2], txt[:, :, 2]), dim=1))


def test_references_are_compositions() -> None:
    """Each head, weight and stream in its place."""
    given = joint_inputs(2, 3, 64, torch.float32)
    img, txt, *norms, cos, sin = given
    joint = joint_qkv_reference(*given)
    for part, out in enumerate(joint[:2]):
        image, text = out[:, :IMAGE], out[:, IMAGE:]
        assert torch.equal(image, rms_norm_rope_reference(img[:, :, part], norms[part], cos, sin))
        assert torch.equal(text, rms_norm_rope_reference(txt[:, :, part], norms[2 + part]))
        assert torch.equal(image, qk_norm_rope_reference(img, norms[0], norms[1], cos, sin)[part])


@pytest.mark.parametrize("strided", ["tokens", "heads", "batch"])
def test_other_strides(strided: str) -> None:
    qkv, *rest = single_inputs(2, 3, 64, torch.float32)
    axis = {"batch": 0, "tokens": 1, "heads": 3}[strided]
    spread = qkv.repeat_interleave(2, dim=axis)
    every_other = spread[(slice(None),) * axis + (slice(None, None, 2),)]
    for out, same in zip(qk_norm_rope(every_other, *rest), qk_norm_rope(qkv, *rest), strict=True):
        assert torch.equal(out, same)


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": torch.zeros_like,
    "one nan": lambda x: x.index_fill(1, torch.tensor([2], device=x.device), torch.nan),
    "halves swapped": lambda x: x.roll(x.shape[-1] // 2, dims=-1),
    "pairs swapped": lambda x: x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2),
    "one row off": lambda x: x.roll(1, dims=1),
    "one head off": lambda x: x.roll(1, dims=2),
    "text first": lambda x: torch.cat((x[:, IMAGE:], x[:, :IMAGE]), dim=1),
    "samples swapped": lambda x: x.flip(0),
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
@each_op
def test_a_wrong_result_is_seen(
    op: Op, reference: Op, inputs: Op, corrupt: Callable[[Tensor], Tensor]
) -> None:
    given = inputs(2, 3, 64, torch.bfloat16)
    for right, oracle in zip(reference(*given), reference(*wide(given)), strict=True):
        with pytest.raises(AssertionError):
            assert_close_to_oracle(corrupt(right), right, oracle)


@pytest.mark.parametrize("argument", ["weights swapped", "turned the other way", "text turned too"])
def test_a_wrong_argument_is_seen(argument: str) -> None:
    qkv, q_weight, k_weight, cos, sin = given = single_inputs(2, 3, 64, torch.bfloat16)
    wrong = {
        "weights swapped": (qkv, k_weight, q_weight, cos, sin),
        "turned the other way": (qkv, q_weight, k_weight, cos, -sin),
        "text turned too": (qkv, q_weight, k_weight, *tables((3, 1, 3), 64)),
    }[argument]
    outs, right = qk_norm_rope(*wrong), qk_norm_rope_reference(*given)
    for out, same_dtype, oracle in zip(outs, right, qk_norm_rope_reference(*wide(given)), strict=True):
        with pytest.raises(AssertionError):
            assert_close_to_oracle(out, same_dtype, oracle)


Change = Callable[[Tensor], Tensor]
SINGLE_MISFITS: list[tuple[int, Change, str]] = [
    (0, lambda qkv: qkv[:, :, :2], r"qkv is \[2, 9, 2, 3, 64\], expected \[B, L, 3, nh, hd\]"),
    (0, lambda qkv: qkv.flatten(2), r"qkv is \[2, 9, 576\], expected \[B, L, 3, nh, hd\]"),
    (0, lambda qkv: qkv[..., :63], r"with an even hd"),
    (0, lambda qkv: qkv.double(), r"qkv is torch.float64, expected one of torch.float32"),
    (0, lambda qkv: qkv[..., ::2], r"qkv has stride 2 in its last dimension, expected 1"),
    (0, lambda qkv: qkv[:, :5], r"cos and sin have 6 rows for 5 tokens, expected no more"),
    (
        1,
        lambda weight: weight.bfloat16(),
        r"q_weight is torch.bfloat16 \[64\], expected torch.float32 \[64\]",
    ),
    (2, lambda weight: weight[:32], r"k_weight is torch.float32 \[32\], expected torch.float32 \[64\]"),
    (3, lambda cos: cos.double(), r"cos is torch.float64 \[6, 32\], expected torch.float32 \[6, 32\]"),
    (4, lambda sin: sin[:, :16], r"sin is torch.float32 \[6, 16\], expected torch.float32 \[6, 32\]"),
    (4, lambda sin: sin.repeat(1, 2)[:, :32], r"sin has strides \(64, 1\), expected a contiguous table"),
]
JOINT_MISFITS: list[tuple[int, Change, str]] = [
    (0, lambda img: img[:, :, 0], r"img_qkv is \[2, 6, 3, 64\], expected \[B, L, 3, nh, hd\]"),
    (
        1,
        lambda txt: txt[:1],
        r"txt_qkv is torch.float32 \[1, 3, 3, 3, 64\], expected torch.float32 \[2, 3, 3",
    ),
    (1, lambda txt: txt.half(), r"txt_qkv is torch.float16 .* expected torch.float32"),
    (5, lambda weight: weight[:32], r"txt_k_weight is torch.float32 \[32\], expected torch.float32 \[64\]"),
]


@pytest.mark.parametrize(("at", "change", "message"), SINGLE_MISFITS)
def test_single_arguments_that_do_not_fit(at: int, change: Change, message: str) -> None:
    given = list(single_inputs(2, 3, 64, torch.float32))
    given[at] = change(given[at])
    with pytest.raises(ValueError, match=message):
        qk_norm_rope(*given)


@pytest.mark.parametrize(("at", "change", "message"), JOINT_MISFITS)
def test_joint_arguments_that_do_not_fit(at: int, change: Change, message: str) -> None:
    given = list(joint_inputs(2, 3, 64, torch.float32))
    given[at] = change(given[at])
    with pytest.raises(ValueError, match=message):
        joint_qkv(*given)


def test_the_compiler_is_told_the_truth() -> None:
    torch.library.opcheck(qk_norm_rope, single_inputs(2, 3, 64, torch.bfloat16))
    torch.library.opcheck(joint_qkv, joint_inputs(2, 3, 64, torch.bfloat16))


@pytest.mark.gpu
@each_op
def test_full_size(op: Op, reference: Op, inputs: Op) -> None:
    """118,800 image and 256 text tokens, into memory that held NaN."""
    heads, hd, grid, text = 24, 128, (33, 45, 80), 256
    tokens = 118_800 + text
    given = inputs(1, heads, hd, torch.bfloat16, grid, text)
    shape = (1, tokens, heads, hd)
    poison = [torch.full(shape, torch.nan, dtype=torch.bfloat16, device=DEVICE) for _ in range(3)]
    del poison
    outs = op(*given)
    assert not any(out.isnan().any() for out in outs)
    rows = torch.tensor([0, 1, 59_999, 118_798, 118_799], device=DEVICE)
    last = torch.tensor([0, text - 1], device=DEVICE)
    *tensors, cos, sin = given
    if op is qk_norm_rope:
        sample = [tensors[0][:, torch.cat((rows, 118_800 + last))], *tensors[1:]]
    else:
        sample = [tensors[0][:, rows], tensors[1][:, last], *tensors[2:]]
    picked = (*sample, cos[rows], sin[rows])
    for out, same_dtype, oracle in zip(outs, reference(*picked), reference(*wide(picked)), strict=True):
        assert_close_to_oracle(out[:, torch.cat((rows, 118_800 + last))], same_dtype, oracle)
