"""The layer gate: what TensorRT really built passes, and every loss that it looks for is noticed."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hyvideo_rt.config import MODELS
from hyvideo_rt.engines.spec import EngineSpec
from hyvideo_rt.engines.tensorrt import Layer, Report
from hyvideo_rt.errors import BuildFailed
from hyvideo_rt.export.gate import check_gate
from hyvideo_rt.export.programs import single_block

SPEC = EngineSpec("single_block", "0" * 64, (80, 256), "bf16", "tensorrt_rtx", "sm89")
PROGRAM = single_block(MODELS["tiny"].dit, torch.bfloat16, onnx=True)


def layer(name: str, *inputs: str, dtype: str = "BFloat16") -> Layer:
    return Layer(name, "kgen", tuple((each, dtype) for each in inputs), (("out", dtype),))


GOOD = Report(
    (
        layer("__myl_CastMeanSubMul_myl0_1", "x", "mod"),
        layer("__myl_FcAdd_myl0_2", "h", "linear1.weight", "linear1.bias"),
        layer("_gemm_mha_v2_myl0_14", "q", "k", "v"),
        layer("__myl_FcAddMulAdd_myl0_17", "h", "linear2.weight", "linear2.bias"),
    ),
    scratch_bytes=9_872_384,
)


def without(name: str) -> Report:
    return replace(GOOD, layers=tuple(each for each in GOOD.layers if name not in each.name))


def changed(change: Callable[[Layer], Layer]) -> Report:
    return replace(GOOD, layers=tuple(change(each) for each in GOOD.layers))


def widened(each: Layer) -> Layer:
    if "FcAdd_" not in each.name:
        return each
    return replace(each, inputs=tuple((name, "Float") for name, _ in each.inputs))


def test_what_is_asked_for_passes() -> None:
    check_gate(GOOD, SPEC, PROGRAM)


def test_fp16_attention_has_a_limit() -> None:
    half = changed(lambda each: replace(each, inputs=tuple((name, "Half") for name, _ in each.inputs)))
    small, large = (replace(SPEC, precision="fp16", shape=(tokens, 256)) for tokens in (65_248, 65_249))
    check_gate(half, small, PROGRAM)
    with pytest.raises(BuildFailed, match="above 65504 keys, and it has 65505: take bf16 or fp8"):
        check_gate(half, large, PROGRAM)


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (without("mha"), "its attention is 0 fused kernels instead of 1"),
        (without("FcAddMulAdd"), "it has 1 matrix products in BFloat16 instead of 2"),
        (changed(widened), "it has 1 matrix products in BFloat16 instead of 2 .*FcAdd_myl0_2 Float"),
        (
            replace(GOOD, layers=(*GOOD.layers, layer("__myl_Tran_myl0_18", "linear2.weight"))),
            "__myl_Tran_myl0_18 transposes a weight at every call",
        ),
        (replace(GOOD, scratch_bytes=10**9), "it needs 1.0 GB of scratch"),
    ],
    ids=["attention", "product", "dtype", "transposition", "scratch"],
)
def test_every_loss_is_noticed(report: Report, reason: str) -> None:
    with pytest.raises(BuildFailed, match=reason):
        check_gate(report, SPEC, PROGRAM)
