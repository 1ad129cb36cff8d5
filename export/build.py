"""From a spec to a checked engine in the store: program, compilation, the runtime's own loading, parity."""

import hashlib
import platform
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hyvideo_rt.config import ModelConfig
from hyvideo_rt.engines.backends import BACKENDS, INDUCTOR, OPENVINO, TENSORRT
from hyvideo_rt.engines.manifest import Manifest, TensorInfo
from hyvideo_rt.engines.spec import MAX_TEXT, EngineSpec, digest
from hyvideo_rt.engines.store import Engine, EngineStore, sha256_of
from hyvideo_rt.engines.target import device_name, target_of
from hyvideo_rt.errors import EngineError
from hyvideo_rt.export.gate import check_gate
from hyvideo_rt.export.onnx_graph import export_onnx, onnx_runtime
from hyvideo_rt.export.parity import Parity, compare
from hyvideo_rt.export.programs import (
    DTYPES,
    IMAGE,
    JOINT,
    TEXT,
    Argument,
    Program,
    ops_for,
    program_of,
    sizes_of,
)

EXAMPLE_TEXT = 7  # tokens: any number but 0 and 1, which torch.export takes for constants
REDUCED_TOKENS, REDUCED_TILE = 48, (2, 8, 8)  # where not the engine runs but its graph, on a CPU


@dataclass(frozen=True)
class Compiled:
    """inputs with the weights; numbers of tokens are names where the engine takes any. graph is a digest."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    graph: str
    scratch_bytes: int | None


class Builder:
    """Builds engines of one model on one machine; what several engines share is made once."""

    def __init__(self, config: ModelConfig, store: EngineStore, device: torch.device) -> None:
        self.config, self.store, self.device = config, store, device
        self._graphs: dict[EngineSpec, bytes] = {}
        self._parities: dict[EngineSpec, Parity] = {}

    def build(self, spec: EngineSpec) -> tuple[Engine, bool]:
        """The engine, and whether it was built just now or is one that the store already had.

        Raises BuildFailed; the store is then as it was.
        """
        backend = BACKENDS[spec.backend]
        with self.store.building(spec):
            try:
                return self.store.load(spec, backend.source(), backend.libraries(self.device)), False
            except EngineError:
                return self._build(spec), True

    def _build(self, spec: EngineSpec) -> Engine:
        backend = BACKENDS[spec.backend]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / backend.artefact
            start = time.perf_counter()
            compiled = self._compile(spec, path)
            build_s = time.perf_counter() - start
            manifest = Manifest(
                spec=spec,
                inputs=compiled.inputs,
                outputs=compiled.outputs,
                source=backend.source(),
                graph=compiled.graph,
                libraries=backend.libraries(self.device),
                built_on=_this_machine(self.device),
                build_s=round(build_s, 2),
                peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                scratch_bytes=compiled.scratch_bytes,
                parity=self._parity(spec, path, compiled).require(spec.name),
                artefact=path.name,
                size_bytes=path.stat().st_size,
                sha256=sha256_of(path),
            )
            return self.store.save(manifest, path)

    def _compile(self, spec: EngineSpec, path: Path) -> Compiled:
        if spec.backend == "inductor":
            program = program_of(spec, self.config, ops_for(spec))
            examples = examples_of(program, spec, self.device)
            text = INDUCTOR.build(program, examples, varying(program, spec), path)
            return _compiled(program, {IMAGE: spec.shape[0]}, digest(text))
        program, graph = program_of(spec, self.config), self._graph(spec)
        name = hashlib.sha256(graph).hexdigest()
        if spec.backend == "openvino":
            OPENVINO.build(graph, dtype_name(DTYPES[spec.precision]), path)
            return _compiled(program, {}, name)
        sizes = sizes_of(spec, MAX_TEXT)
        shapes = {each.name: each.resolved(sizes) for each in program.inputs}
        report = TENSORRT[spec.backend].build(graph, shapes, spec.target, path)
        check_gate(report, spec, program)
        return _compiled(program, sizes, name, report.scratch_bytes)

    def _parity(self, spec: EngineSpec, path: Path, compiled: Compiled) -> Parity:
        """Of the engine, loaded as the runtime will; where it cannot run, of its graph."""
        if spec.target != target_of(self.device):
            return self._parity_of_graph(spec)
        engine = BACKENDS[spec.backend].load(path, compiled.inputs, compiled.outputs)
        sizes = sizes_of(spec, MAX_TEXT if spec.backend in TENSORRT else EXAMPLE_TEXT)
        return compare(program_of(spec, self.config), engine, sizes, self.device, where="device")

    def _parity_of_graph(self, spec: EngineSpec) -> Parity:
        """On a CPU, in fp32 and on a reduced size: what can be said without the GPU."""
        shape = REDUCED_TILE if spec.component == "vae_decoder_tile" else (REDUCED_TOKENS, MAX_TEXT)
        reduced = replace(spec, shape=shape, target="")
        if reduced not in self._parities:
            program = program_of(reduced, self.config, dtype=torch.float32)
            run = onnx_runtime(export_onnx(program_of(reduced, self.config, ops_for(spec), torch.float32)))
            self._parities[reduced] = compare(
                program, run, sizes_of(reduced, EXAMPLE_TEXT), torch.device("cpu"), where="onnx"
            )
        return self._parities[reduced]

    def _graph(self, spec: EngineSpec) -> bytes:
        """The ONNX file: the same for all targets, and for blocks of any number of tokens."""
        same = replace(spec, target="", shape=spec.shape if spec.component == "vae_decoder_tile" else ())
        if same not in self._graphs:
            self._graphs[same] = export_onnx(program_of(spec, self.config, ops_for(spec)))
        return self._graphs[same]


def examples_of(
    program: Program, spec: EngineSpec, device: torch.device
) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and weights to trace with."""
    sizes = sizes_of(spec, EXAMPLE_TEXT)
    return (
        [each.zeros(sizes, device) for each in program.inputs],
        [each.zeros({}, device) for each in program.weights],
    )


def varying(program: Program, spec: EngineSpec) -> list[dict[int, torch.export.Dim]]:
    """Per input, its sizes that vary and between what: the text has 1 to `shape[1]` tokens."""
    shortest, longest = sizes_of(spec, 1), sizes_of(spec, MAX_TEXT)
    dims = {n: torch.export.Dim(n, min=shortest[n], max=longest[n]) for n in (TEXT, JOINT) if n in shortest}
    return [{i: dims[size] for i, size in enumerate(each.shape) if size in dims} for each in program.inputs]


def _compiled(
    program: Program, fixed: Mapping[str, int], graph: str, scratch_bytes: int | None = None
) -> Compiled:
    inputs = tuple(_info(each, fixed) for each in (*program.inputs, *program.weights))
    return Compiled(inputs, tuple(_info(each, fixed) for each in program.outputs), graph, scratch_bytes)


def _info(argument: Argument, fixed: Mapping[str, int]) -> TensorInfo:
    shape = tuple(fixed.get(size, size) if isinstance(size, str) else size for size in argument.shape)
    return TensorInfo(argument.name, shape, dtype_name(argument.dtype))


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _this_machine(device: torch.device) -> dict[str, str]:
    name = device_name(device) or platform.processor() or "CPU"
    driver = Path("/proc/driver/nvidia/version")
    about = {"device": name, "system": platform.platform()}
    return about | {"driver": driver.read_text().splitlines()[0]} if driver.exists() else about
