"""Engines of TensorRT, by either of its libraries: `tensorrt_rtx` and the classic `tensorrt` have one API.

RTX compiles on any machine for the compute capabilities that it is told (8.0, 8.6, 8.9, 12.0; not 9.0);
classic TensorRT compiles on the GPU that will run the engine. No engine of either has run on a GPU yet, and
nothing of the classic library has been tried at all: what is here follows its documentation.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from hyvideo_rt.engines.library import installed_version, require
from hyvideo_rt.engines.manifest import TensorInfo
from hyvideo_rt.engines.source import source_digest
from hyvideo_rt.errors import BuildFailed, EngineError

LAYER = re.compile(
    r"Name: (?P<name>\S+), LayerType: (?P<kind>\S+), Inputs: (?P<inputs>.*?), Constants: .*?, "
    r"Outputs: (?P<outputs>.*?), TacticName: "
)
TENSOR = re.compile(r"Name: ([^,\s]+), Dimensions: .*?Datatype: (\w+)")
SCRATCH = re.compile(r"Max Scratch Memory: (\d+) bytes")


@dataclass(frozen=True)
class Layer:
    """One kernel of an engine: the names and dtypes of what it reads and writes."""

    name: str
    kind: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Report:
    """What the builder says about its work."""

    layers: tuple[Layer, ...]
    scratch_bytes: int


class TensorRT:
    artefact = "engine.plan"

    def __init__(self, package: str) -> None:
        """package is `tensorrt_rtx` or `tensorrt`."""
        self.package = package

    def source(self) -> str:
        return source_digest("engines/tensorrt.py", "export/onnx_graph.py")

    def libraries(self, device: torch.device) -> dict[str, str]:
        return {self.package: installed_version(self.package)}

    def load(
        self, path: Path, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
    ) -> "TensorRTEngine":
        return TensorRTEngine(require(self.package), path, inputs, outputs)

    def build(self, graph: bytes, shapes: Mapping[str, tuple[int, ...]], target: str, path: Path) -> Report:
        """Compile an ONNX file's graph for inputs of exactly these shapes and for one target, `sm89` for one.

        Raises BuildFailed with what the builder said.
        """
        trt = require(self.package)
        log = _logger(trt)
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        if not parser.parse(graph):  # of a file, the path would become a part of the plan
            raise BuildFailed(f"{self.package} cannot read the graph: {parser.get_error(0)}")
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the layers are not in the log
        if self.package == "tensorrt_rtx":
            config.num_compute_capabilities = 1
            config.set_compute_capability(_capability(trt, target), 0)
        config.add_optimization_profile(_profile(builder, network, shapes))
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildFailed(f"{self.package} cannot build for {target}: {_errors(log)}")
        path.write_bytes(plan)
        return _report(log.lines)


class TensorRTEngine:
    """`engine(*inputs, *weights)` gives the list of outputs. Never run on a GPU yet.

    All engines of a device share one scratch memory: they run one after the other on one stream. Tensors are
    found by name: their order in a plan differs from build to build (TensorRT-RTX 1.7.1).
    """

    _arenas: ClassVar[dict[int, Tensor]] = {}

    def __init__(
        self, trt: Any, path: Path, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
    ) -> None:
        runtime = trt.Runtime(_logger(trt))
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise EngineError(f"{path}: {trt.__name__} cannot load it on this GPU")
        self._inputs, self._outputs = inputs, outputs
        self._engine, self._runtime = engine, runtime  # the context needs both
        self._context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        device = tensors[0].device
        arena = self._arena(device)
        self._context.set_device_memory(arena.data_ptr(), arena.nbytes)
        for info, tensor in zip(self._inputs, tensors, strict=True):
            assert tensor.is_contiguous(), info.name
            self._context.set_input_shape(info.name, info.shape)
            self._context.set_tensor_address(info.name, tensor.data_ptr())
        outputs = [
            torch.empty([int(size) for size in info.shape], dtype=getattr(torch, info.dtype), device=device)
            for info in self._outputs
        ]
        for info, output in zip(self._outputs, outputs, strict=True):
            self._context.set_tensor_address(info.name, output.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream):
            raise EngineError(
                "TensorRT could not start the engine; `hyvideo-rt doctor` shows the GPU's state"
            )
        return outputs

    def _arena(self, device: torch.device) -> Tensor:
        """The device's scratch memory, as large as the largest engine's that has run."""
        index, needed = device.index or 0, self._engine.device_memory_size_v2
        if index not in self._arenas or self._arenas[index].nbytes < needed:
            self._arenas.pop(index, None)  # freed before the larger one is asked for
            self._arenas[index] = torch.empty(needed, dtype=torch.uint8, device=device)
        return self._arenas[index]


def _logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[tuple[Any, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.append((severity, message))

    log = Log()
    log.failures = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
    return log


def _errors(log: Any) -> str:
    return "; ".join(message for severity, message in log.lines if severity in log.failures) or "no reason"


def _profile(builder: Any, network: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if -1 in tuple(tensor.shape):
            shape = shapes[tensor.name]
            profile.set_shape(tensor.name, shape, shape, shape)
    return profile


def _capability(trt: Any, target: str) -> Any:
    found = getattr(trt.ComputeCapability, target.upper(), None)
    if found is None:
        raise BuildFailed(
            f"got the target {target}, for which TensorRT-RTX builds nothing; it builds for compute "
            f"capabilities 8.0, 8.6, 8.9 and 12.0\n  take --backend inductor or tensorrt on that GPU"
        )
    return found


def _report(lines: Sequence[tuple[Any, str]]) -> Report:
    text = "\n".join(message for _, message in lines)
    layers = tuple(
        Layer(found["name"], found["kind"], _tensors(found["inputs"]), _tensors(found["outputs"]))
        for found in LAYER.finditer(text)
    )
    scratch = SCRATCH.search(text)
    if not layers or not scratch:
        raise BuildFailed("the builder's log shows neither layers nor scratch memory; is it another version?")
    return Report(layers, int(scratch[1]))


def _tensors(words: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, dtype) for name, dtype in TENSOR.findall(words))
