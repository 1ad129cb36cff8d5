"""The graphs that TensorRT compiles, run node by node by ONNX Runtime, against the programs themselves."""

import pytest
import torch

from hyvideo_rt.buckets import TINY_PRESETS
from hyvideo_rt.config import MODELS
from hyvideo_rt.engine_set import Target, specs_of
from hyvideo_rt.engines.spec import Precision
from hyvideo_rt.export.onnx_graph import export_onnx, onnx_runtime
from hyvideo_rt.export.parity import random_case
from hyvideo_rt.export.programs import ops_for, program_of, sizes_of

TINY, CPU = MODELS["tiny"], torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "fp8"])
@pytest.mark.parametrize("block", [0, 1], ids=["double", "single"])
def test_a_graph_computes_what_its_program_does(block: int, precision: Precision) -> None:
    """One file for every number of tokens. Sums are in another order, which in FP8 rounds a few values the
    other way: a two hundredth of FP8's own error.
    """
    spec = specs_of(TINY, TINY_PRESETS["tiny-square"], Target("tensorrt_rtx", "sm89", precision, "fp16"))[
        block
    ]
    program = program_of(spec, TINY, dtype=torch.float32)
    run = onnx_runtime(export_onnx(program_of(spec, TINY, ops_for(spec), torch.float32)))
    for tokens in (7, 256):
        inputs, weights = random_case(program, sizes_of(spec, tokens), CPU)
        with torch.inference_mode():
            expected = program(inputs, weights)
        for got, want in zip(run(*inputs, *weights), expected, strict=True):
            difference = (got - want).abs()
            assert difference.median() < 1e-6
            assert difference.square().mean().sqrt() < (1e-6 if precision == "fp32" else 5e-4)
            assert want.std() > 0.5


def test_only_layers_that_are_named_stay_wide() -> None:
    target = Target("tensorrt_rtx", "sm89", "fp8", "fp16", wide=("linear2", "attention"))
    spec = specs_of(TINY, TINY_PRESETS["tiny-square"], target)[1]
    weights = {weight.name: weight for weight in program_of(spec, TINY).weights}
    assert weights["linear1.weight"].dtype == torch.float8_e4m3fn
    assert weights["linear1.scale"].dtype == torch.float32
    assert weights["linear2.weight"].dtype == torch.bfloat16
    assert "linear2.scale" not in weights
    narrower = program_of(
        specs_of(TINY, TINY_PRESETS["tiny-square"], Target("tensorrt_rtx", "sm89", "fp8", "fp16"))[1], TINY
    )
    assert len(narrower.weights) == len(weights) + 1
