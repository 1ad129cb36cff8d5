"""Engines of OpenVINO for CPUs, compiled from the ONNX graph that TensorRT compiles for GPUs."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.engines.library import installed_version, require
from hyvideo_rt.engines.manifest import TensorInfo
from hyvideo_rt.engines.source import source_digest

PACKAGE = "openvino"
DEVICE = "CPU"
HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class OpenVINO:
    """Compiles for this machine's CPU."""

    artefact = "engine.blob"

    def source(self) -> str:
        return source_digest("engines/openvino.py", "export/onnx_graph.py")

    def libraries(self, device: torch.device) -> dict[str, str]:
        return {PACKAGE: installed_version(PACKAGE)}

    def load(
        self, path: Path, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
    ) -> "OpenVINOEngine":
        core = library().Core()
        return OpenVINOEngine(core.import_model(path.read_bytes(), DEVICE, _options(inputs[0].dtype)))

    def build(self, graph: bytes, dtype: str, path: Path) -> None:
        """Compile an ONNX file's graph for tensors of this dtype."""
        core = library().Core()
        compiled = core.compile_model(core.read_model(graph), DEVICE, _options(dtype))
        path.write_bytes(compiled.export_model().getvalue())


def library() -> ModuleType:
    """OpenVINO. Its import would report to its makers, from a process that it forks; it does without."""
    missing: Any = None
    sys.modules.setdefault("openvino_telemetry", missing)
    return require(PACKAGE)


class OpenVINOEngine:
    """`engine(*inputs, *weights)` gives the list of outputs; what goes in is read where it lies."""

    def __init__(self, compiled: Any) -> None:
        self._openvino = importlib.import_module(PACKAGE)
        self._types = [port.get_element_type() for port in compiled.inputs]
        self._outputs = range(len(compiled.outputs))
        self._request = compiled.create_infer_request()

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        for i, tensor in enumerate(tensors):
            self._request.set_input_tensor(i, self._shared(tensor, self._types[i]))
        self._request.infer()
        return [self._copy(self._request.get_output_tensor(i), tensors[0].dtype) for i in self._outputs]

    def _shared(self, tensor: Tensor, type_: Any) -> Any:
        assert tensor.is_contiguous(), "OpenVINO reads plain memory"
        if tensor.dtype == torch.bfloat16:  # which numpy does not know
            return self._openvino.Tensor(tensor.view(torch.int16).numpy(), list(tensor.shape), type_)
        return self._openvino.Tensor(tensor.numpy(), shared_memory=True)

    def _copy(self, output: Any, dtype: torch.dtype) -> Tensor:
        """Out of the request's memory, which its next run overwrites."""
        found = torch.from_numpy(output.data.copy())
        return found.view(dtype) if found.dtype != dtype else found


def _options(dtype: str) -> dict[str, str]:
    """Asked for at each import too: else fp32 graphs run in bf16 where the CPU can, and give NaN."""
    return {"INFERENCE_PRECISION_HINT": HINTS[dtype], "PERFORMANCE_HINT": "LATENCY"}
