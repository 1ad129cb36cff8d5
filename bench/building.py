"""Engines for benchmarks, built in a process of their own: one that a compiler ends leaves a reason.

There each is loaded, run and compared as `export.build` does; here it is only loaded after that.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from hyvideo_rt.bench.apart import apart
from hyvideo_rt.bench.memory import give_back
from hyvideo_rt.cli.engine_choice import load_engine
from hyvideo_rt.config import ModelConfig
from hyvideo_rt.engine_set import EngineSet, Target
from hyvideo_rt.engines import openvino
from hyvideo_rt.engines.backends import TENSORRT
from hyvideo_rt.engines.library import require
from hyvideo_rt.engines.manifest import Manifest
from hyvideo_rt.engines.spec import BackendName, EngineSpec
from hyvideo_rt.engines.store import EngineStore
from hyvideo_rt.export.build import Builder
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.vae import CausalVAE

MakeEngines = Callable[[HunyuanVideoDiT, CausalVAE], EngineSet]
BACKENDS: dict[str, tuple[BackendName, ...]] = {  # that are tried on a device
    "cpu": ("inductor", "openvino"),
    "cuda": ("inductor", "tensorrt", "tensorrt_rtx"),
}


def built(
    config: ModelConfig, specs: Sequence[EngineSpec], target: Target, device: torch.device, folder: Path
) -> MakeEngines:
    """These engines, built in this folder and loaded. Raises EngineError."""
    build(config, specs, device, folder)
    return load(config, specs, target, device, folder)


def load(
    config: ModelConfig, specs: Sequence[EngineSpec], target: Target, device: torch.device, folder: Path
) -> MakeEngines:
    """From this folder, as the runtime does. Raises EngineError."""
    loaded = {spec: load_engine(store_in(folder), device, spec) for spec in specs}
    return functools.partial(EngineSet, config, target, load=loaded.__getitem__)


def build(
    config: ModelConfig, specs: Sequence[EngineSpec], device: torch.device, folder: Path
) -> list[Manifest]:
    """Those that the folder's store lacks; the manifests of all. Raises EngineError."""
    for backend in {spec.backend for spec in specs}:
        import_library(backend)  # before a process and a graph are made in vain
    give_back(device)
    return apart(build_here, config, specs, device, folder)


def build_here(
    config: ModelConfig, specs: Sequence[EngineSpec], device: torch.device, folder: Path
) -> list[Manifest]:
    builder = Builder(config, store_in(folder), device)
    return [builder.build(spec)[0].manifest for spec in specs]


def import_library(backend: BackendName) -> None:
    """Raises EngineError where it is missing."""
    if backend == "openvino":
        openvino.library()
    elif backend in TENSORRT:
        require(backend)


def store_in(folder: Path) -> EngineStore:
    return EngineStore(folder / "engines", folder / "key")
