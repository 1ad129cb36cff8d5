"""The check that every engine passes: what is as exact as the module does, what is wrong does not."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from hyvideo_rt.config import MODELS
from hyvideo_rt.errors import BuildFailed
from hyvideo_rt.export.parity import compare
from hyvideo_rt.export.programs import IMAGE, JOINT, TEXT, Program, double_block, single_block

SIZES = {IMAGE: 80, TEXT: 5, JOINT: 85}
Change = Callable[[Tensor], Tensor]


def engine_of(program: Program, change: Change) -> Callable[..., list[Tensor]]:
    """The module itself, summing in another order, with its first output changed."""

    def run(*tensors: Tensor) -> list[Tensor]:
        inputs, weights = list(tensors[: len(program.inputs)]), list(tensors[len(program.inputs) :])
        first, *others = program(inputs, [weight.clone() for weight in weights])
        return [change(first), *others]

    return run


def programs() -> Sequence[Program]:
    dit = MODELS["tiny"].dit
    return double_block(dit, torch.float32), single_block(dit, torch.bfloat16)


@pytest.mark.parametrize("program", programs(), ids=["double fp32", "single bf16"])
def test_the_module_itself_passes(program: Program) -> None:
    parity = compare(program, engine_of(program, lambda x: x), SIZES, torch.device("cpu"))
    assert 0 < parity.engine_error <= parity.budget
    assert parity.require("engine")["budget"] == parity.budget
    assert parity.reference == "float64"


WRONG: dict[str, Change] = {
    "zeros": torch.zeros_like,
    "one NaN": lambda x: x.index_fill(1, torch.tensor([3]), torch.nan),
    "one row shifted": lambda x: x.roll(1, dims=1),
    "halves swapped": lambda x: torch.cat(x.chunk(2, dim=-1)[::-1], dim=-1),
    "one wrong value": lambda x: torch.where(x == x.max(), 0, x),
    "too large by a twentieth": lambda x: x * 1.05,
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("program", programs(), ids=["double fp32", "single bf16"])
def test_what_is_wrong_fails(program: Program, wrong: str) -> None:
    parity = compare(program, engine_of(program, WRONG[wrong]), SIZES, torch.device("cpu"))
    with pytest.raises(BuildFailed, match="nothing was stored"):
        parity.require("engine")
