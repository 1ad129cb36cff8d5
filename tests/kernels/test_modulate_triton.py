"""adaLN and the gated residual in Triton, against the reference in fp64."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from oracle import DEVICE, assert_close_to_oracle
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

from hyvideo_rt.kernels.modulate import (
    gate_residual_norm_reference,
    gate_residual_reference,
    layer_norm_modulate_reference,
)
from hyvideo_rt.kernels.modulate_triton import gate_residual, gate_residual_norm, layer_norm_modulate


@dataclass(frozen=True)
class Op:
    """An operator, its reference, and which of `inputs` both take."""

    triton: CustomOpDef
    reference: Callable[..., Tensor | tuple[Tensor, ...]]
    takes: tuple[str, ...]

    def run(self, given: dict[str, Tensor]) -> list[Tensor]:
        return as_list(self.triton(*(given[name] for name in self.takes)))

    def run_reference(self, given: dict[str, Tensor]) -> list[Tensor]:
        return as_list(self.reference(*(given[name] for name in self.takes)))


OPS = {
    "modulate": Op(layer_norm_modulate, layer_norm_modulate_reference, ("x", "shift", "scale")),
    "gate": Op(gate_residual, gate_residual_reference, ("x", "gate", "y")),
    "both": Op(gate_residual_norm, gate_residual_norm_reference, ("x", "gate", "y", "shift", "scale")),
}


def as_list(result: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def inputs(b: int, tokens: int, d: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """As the blocks pass them: x the first tokens of a longer stream, vectors out of one [B, 6, D]."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    stream = 3 + 2 * torch.randn(b, tokens + 3, d, generator=generator, device=DEVICE)
    y = torch.randn(b, tokens, d, generator=generator, device=DEVICE)
    vectors = torch.randn(b, 6, d, generator=generator, device=DEVICE).to(dtype)
    shift, scale, gate, *_ = vectors.unbind(1)
    return {"x": stream.to(dtype)[:, :tokens], "y": y.to(dtype), "shift": shift, "scale": scale, "gate": gate}


def wide(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in given.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 40), (2, 5, 192), (2, 2, 1500)])
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_close_to_fp64(op: Op, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    given = inputs(*shape, dtype)
    outs = op.run(given)
    for out, reference, oracle in zip(
        outs, op.run_reference(given), op.run_reference(wide(given)), strict=True
    ):
        assert out.dtype == dtype
        assert out.is_contiguous()
        assert_close_to_oracle(out, reference, oracle)


def test_the_norm_reads_the_sum_as_rounded() -> None:
    given = inputs(2, 5, 192, torch.bfloat16)
    total, out = OPS["both"].run(given)
    assert torch.equal(total, OPS["gate"].run(given)[0])
    assert torch.equal(out, OPS["modulate"].run({**given, "x": total})[0])


def test_variance_survives_a_large_mean() -> None:
    """The mean of the squares less the square of the mean would keep nothing of it."""
    given = inputs(1, 3, 192, torch.float32)
    given["x"] = 1e4 + given["x"]
    (out,), op = OPS["modulate"].run(given), OPS["modulate"]
    assert_close_to_oracle(out, op.run_reference(given)[0], op.run_reference(wide(given))[0])


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": torch.zeros_like,
    "one nan": lambda x: x.index_fill(1, torch.tensor([2], device=x.device), torch.nan),
    "halves swapped": lambda x: x.roll(x.shape[-1] // 2, dims=-1),
    "one row off": lambda x: x.roll(1, dims=1),
    "one column off": lambda x: x.roll(1, dims=-1),
    "samples swapped": lambda x: x.flip(0),
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_wrong_result_is_seen(op: Op, corrupt: Callable[[Tensor], Tensor]) -> None:
    given = inputs(2, 5, 192, torch.bfloat16)
    for reference, oracle in zip(op.run_reference(given), op.run_reference(wide(given)), strict=True):
        with pytest.raises(AssertionError):
            assert_close_to_oracle(corrupt(reference), reference, oracle)


MISFITS: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
    ("x", lambda x: x[0], r"x is \[3, 40\], expected \[B, L, D\]"),
    ("x", lambda x: x.double(), r"x is torch.float64, expected one of torch.float32"),
    ("x", lambda x: x.mT.contiguous().mT, r"x has stride 3 in its last dimension, expected 1"),
    ("y", lambda y: y[:, 1:], r"y is torch.float32 \[2, 2, 40\], expected torch.float32 \[2, 3, 40\]"),
    ("gate", lambda gate: gate.bfloat16(), r"gate is torch.bfloat16 \[2, 40\], expected torch.float32"),
    ("shift", lambda shift: shift[:1], r"shift is torch.float32 \[1, 40\], expected torch.float32 \[2, 40\]"),
    ("scale", lambda scale: scale.mT.contiguous().mT, r"scale has stride 2 in its last dimension"),
]


@pytest.mark.parametrize(
    ("op", "name", "change", "message"),
    [(op, *misfit) for op in OPS.values() for misfit in MISFITS if misfit[0] in op.takes],
)
def test_arguments_that_do_not_fit(
    op: Op, name: str, change: Callable[[Tensor], Tensor], message: str
) -> None:
    given = inputs(2, 3, 40, torch.float32)
    given[name] = change(given[name])
    with pytest.raises(ValueError, match=message):
        op.run(given)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_the_compiler_is_told_the_truth(op: Op) -> None:
    """Shapes, strides and dtypes that torch.compile assumes are those that come."""
    given = inputs(2, 3, 40, torch.bfloat16)
    torch.library.opcheck(op.triton, tuple(given[name] for name in op.takes))


@pytest.mark.gpu
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_full_size(op: Op) -> None:
    """118,800 tokens of a joint stream with 256 more, in memory that held NaN."""
    tokens, d = 118_800, 3072
    given = inputs(1, tokens, d, torch.bfloat16)
    poison = [torch.full((1, tokens, d), torch.nan, dtype=torch.bfloat16, device=DEVICE) for _ in range(2)]
    del poison
    outs = op.run(given)
    assert not any(out.isnan().any() for out in outs)
    rows = torch.tensor([0, 1, 59_999, tokens - 2, tokens - 1], device=DEVICE)
    sample = {name: given[name][:, rows] if name in ("x", "y") else given[name] for name in op.takes}
    for out, reference, oracle in zip(
        outs, op.run_reference(sample), op.run_reference(wide(sample)), strict=True
    ):
        assert_close_to_oracle(out[:, rows], reference, oracle)
