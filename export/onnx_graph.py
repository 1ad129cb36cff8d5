"""A program as an ONNX graph: what TensorRT compiles, and what runs on a CPU to show that it is right.

Opset 20: from 23 on, attention is one operator, which TensorRT refuses for the VAE's wide heads.
"""

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.engines.library import require
from hyvideo_rt.export.programs import IMAGE, JOINT, TEXT, Argument, Program
from hyvideo_rt.kernels.fp8 import E4M3

OPSET = 20
NOISY = "torch.onnx._internal.exporter._registration"  # warns that torchvision is not there


def export_onnx(program: Program) -> bytes:
    """The file of `program(inputs, weights)`, all of them inputs under their names.

    Numbers of tokens stay open: one graph serves every size. Tensors to trace with take no memory.
    """
    inputs, weights = ([_hollow(each) for each in side] for side in (program.inputs, program.weights))
    dims = {name: torch.export.Dim(name, min=2) for name in (IMAGE, TEXT, JOINT)}
    open_sizes = [_open(each, dims) for each in program.inputs]
    logging.getLogger(NOISY).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            program,
            (inputs, weights),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=[each.name for each in (*program.inputs, *program.weights)],
            output_names=[each.name for each in program.outputs],
            dynamic_shapes=(open_sizes, [None] * len(weights)),
            custom_translation_table=_e4m3_nodes(),
        )
    assert exported is not None
    for node in exported.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    file: bytes = exported.model_proto.SerializeToString(deterministic=True)
    return file


def onnx_runtime(graph: bytes) -> Callable[..., list[Tensor]]:
    """What runs the graph, on a CPU: `run(*inputs, *weights)`.

    It is the judge, so nothing is optimised: each node is computed as the standard says.
    """
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def value(tensor: Tensor) -> Any:
        if tensor.dtype != E4M3:  # which numpy does not know
            return tensor.numpy()
        kind = require("onnx").TensorProto.FLOAT8E4M3FN
        return runtime.OrtValue.ortvalue_from_numpy_with_onnx_type(tensor.view(torch.uint8).numpy(), kind)

    def run(*tensors: Tensor) -> list[Tensor]:
        feed = {name: value(tensor) for name, tensor in zip(names, tensors, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


def _e4m3_nodes() -> dict[Callable[..., object], Callable[..., object]]:
    """How `kernels.fp8` is written in ONNX: with scales of 1, of which TensorRT makes FP8 products."""
    op, types = require("onnxscript").opset20, require("onnx").TensorProto

    def one_like(x: Any) -> Any:
        return op.CastLike(op.Constant(value_float=1.0), x)

    def round_node(x: Any) -> Any:
        one = one_like(x)
        zero = op.Cast(op.Constant(value_float=0.0), to=types.FLOAT8E4M3FN)  # says which 8 bits
        return op.DequantizeLinear(op.QuantizeLinear(x, one, zero), one)

    def widen_node(weight: Any, like: Any) -> Any:
        return op.DequantizeLinear(weight, one_like(like))

    ops = torch.ops.hyvideo_rt
    return {ops.round_e4m3.default: round_node, ops.widen_e4m3.default: widen_node}


def _hollow(argument: Argument) -> Tensor:
    """Zeros that all lie in one place: sizes that are open are 16 and, both together, 32."""
    sizes: Mapping[str, int] = {IMAGE: 16, TEXT: 16, JOINT: 32}
    shape = [sizes[size] if isinstance(size, str) else size for size in argument.shape]
    return torch.zeros((), dtype=argument.dtype).expand(shape)


def _open(argument: Argument, dims: Mapping[str, torch.export.Dim]) -> dict[int, torch.export.Dim]:
    return {i: dims[size] for i, size in enumerate(argument.shape) if isinstance(size, str)}
