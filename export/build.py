"""From a spec to a checked engine in the store: program, compilation, the runtime's own loading, parity."""

import platform
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hyvideo_rt.config import ModelConfig
from hyvideo_rt.engines import inductor
from hyvideo_rt.engines.manifest import Manifest, TensorInfo
from hyvideo_rt.engines.spec import EngineSpec, digest
from hyvideo_rt.engines.store import Engine, EngineStore, sha256_of
from hyvideo_rt.errors import EngineError
from hyvideo_rt.export.parity import compare
from hyvideo_rt.export.programs import (
    JOINT,
    TEXT,
    Argument,
    Program,
    double_block,
    single_block,
    vae_decoder_tile,
)
from hyvideo_rt.kernels.conv3d import conv3d_onednn
from hyvideo_rt.kernels.ops import REFERENCE, Ops

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EXAMPLE_TEXT = 7  # tokens: any number but 0 and 1, which torch.export takes for constants


def program_of(spec: EngineSpec, config: ModelConfig, ops: Ops = REFERENCE) -> Program:
    dtype = DTYPES[spec.precision]
    if spec.component == "double_block":
        return double_block(config.dit, spec.shape[0], dtype, ops)
    if spec.component == "single_block":
        return single_block(config.dit, dtype, ops)
    frames, height, width = spec.shape
    return vae_decoder_tile(config.vae, (frames, height, width), dtype, ops)


def ops_for(spec: EngineSpec, device: torch.device) -> Ops:
    """What is traced: Inductor, too, has to be told about oneDNN (see `kernels.conv3d`)."""
    onednn = device.type == "cpu" and spec.precision == "fp32"
    return replace(REFERENCE, conv3d=conv3d_onednn) if onednn else REFERENCE


def build(
    spec: EngineSpec, config: ModelConfig, store: EngineStore, device: torch.device
) -> tuple[Engine, bool]:
    """The engine, and whether it was built just now or is one that the store already had.

    Raises BuildFailed; the store is then as it was.
    """
    with store.building(spec):
        try:
            return store.load(spec, inductor.source(), inductor.libraries(device)), False
        except EngineError:
            return _build(spec, config, store, device), True


def _build(spec: EngineSpec, config: ModelConfig, store: EngineStore, device: torch.device) -> Engine:
    program = program_of(spec, config, ops_for(spec, device))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine.pt2"
        start = time.perf_counter()
        graph = inductor.build(program, examples(program, spec, device), varying(program, spec), path)
        build_s = time.perf_counter() - start
        engine = inductor.InductorEngine(path)
        parity = compare(program_of(spec, config), engine, _sizes(spec, EXAMPLE_TEXT), device)
        manifest = Manifest(
            spec=spec,
            inputs=tuple(map(_info, program.inputs)),
            outputs=tuple(map(_info, program.outputs)),
            source=inductor.source(),
            graph=digest(graph),
            libraries=inductor.libraries(device),
            built_on=_this_machine(device),
            build_s=round(build_s, 2),
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            scratch_bytes=None,
            parity=parity.require(spec.name),
            artefact=path.name,
            size_bytes=path.stat().st_size,
            sha256=sha256_of(path),
        )
        return store.save(manifest, path)


def examples(program: Program, spec: EngineSpec, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and weights to trace with."""
    sizes = _sizes(spec, EXAMPLE_TEXT)
    return (
        [each.zeros(sizes, device) for each in program.inputs],
        [each.zeros({}, device) for each in program.weights],
    )


def varying(program: Program, spec: EngineSpec) -> list[dict[int, torch.export.Dim]]:
    """Per input, its sizes that vary and between what: the text has 1 to `shape[1]` tokens."""
    if spec.component == "vae_decoder_tile":
        return [{} for _ in program.inputs]
    shortest, longest = _sizes(spec, 1), _sizes(spec, spec.shape[1])
    dims = {name: torch.export.Dim(name, min=shortest[name], max=longest[name]) for name in shortest}
    return [
        {i: dims[size] for i, size in enumerate(each.shape) if isinstance(size, str)}
        for each in program.inputs
    ]


def _sizes(spec: EngineSpec, text_tokens: int) -> dict[str, int]:
    return {TEXT: text_tokens, JOINT: spec.shape[0] + text_tokens}


def _info(argument: Argument) -> TensorInfo:
    return TensorInfo(argument.name, argument.shape, str(argument.dtype).removeprefix("torch."))


def _this_machine(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    return {"device": name, "system": platform.platform()}
