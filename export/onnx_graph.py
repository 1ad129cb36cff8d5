"""A program as an ONNX graph: what TensorRT compiles, and what runs on a CPU to show that it is right.

Opset 20: from 23 on, attention is one operator, which TensorRT refuses for the VAE's wide heads.
"""

import logging
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hyvideo_rt.engines.library import require
from hyvideo_rt.export.programs import IMAGE, JOINT, TEXT, Argument, Program

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

    def run(*tensors: Tensor) -> list[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


def _hollow(argument: Argument) -> Tensor:
    """Zeros that all lie in one place: sizes that are open are 16 and, both together, 32."""
    sizes: Mapping[str, int] = {IMAGE: 16, TEXT: 16, JOINT: 32}
    shape = [sizes[size] if isinstance(size, str) else size for size in argument.shape]
    return torch.zeros((), dtype=argument.dtype).expand(shape)


def _open(argument: Argument, dims: Mapping[str, torch.export.Dim]) -> dict[int, torch.export.Dim]:
    return {i: dims[size] for i, size in enumerate(argument.shape) if isinstance(size, str)}
