"""Engines of AOTInductor: a package of compiled code, called with a flat list of tensors."""

import importlib.metadata
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hyvideo_rt.engines.manifest import TensorInfo
from hyvideo_rt.engines.source import source_digest
from hyvideo_rt.errors import EngineError

OPTIONS: dict[str, object] = {"cpp.dynamic_threads": True}  # as many as at run time, not as at build time


class Inductor:
    """Compiles for the device it runs on: any CUDA GPU, or the CPU."""

    artefact = "engine.pt2"

    def source(self) -> str:
        return source_digest("engines/inductor.py")

    def libraries(self, device: torch.device) -> dict[str, str]:
        found = {"torch": str(torch.__version__)}
        if device.type == "cuda":
            found["triton"] = importlib.metadata.version("triton")
        return found

    def load(
        self, path: Path, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
    ) -> "InductorEngine":
        return InductorEngine(path)

    def build(
        self,
        program: nn.Module,
        examples: tuple[list[Tensor], list[Tensor]],
        sizes: Sequence[Mapping[int, torch.export.Dim]],
        path: Path,
    ) -> str:
        """Compile `program(inputs, weights)`; per input, the sizes that vary. Gives the graph's text."""
        inputs, weights = examples
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of torch about itself
            exported = torch.export.export(
                program, (inputs, weights), dynamic_shapes=(list(sizes), [None] * len(weights))
            )
            torch._inductor.aoti_compile_and_package(
                exported, package_path=str(path), inductor_configs=OPTIONS
            )
        return str(exported.graph)


class InductorEngine:
    """`engine(*inputs, *weights)` gives the list of outputs.

    Loaded by what `torch._inductor.aoti_load_package` calls in the end; to import the compiler for that took
    2.6 s of a process that compiles nothing.
    """

    def __init__(self, path: Path) -> None:
        model, single_threaded, runners, device_index = "model", False, 1, -1
        try:
            loader = torch._C._aoti.AOTIModelPackageLoader(
                str(path), model, single_threaded, runners, device_index
            )
        except RuntimeError as error:
            raise EngineError(
                f"{path.parent.name} cannot be loaded: {str(error).splitlines()[0]}\n"
                f"  it is unpacked to {tempfile.gettempdir()} first: is there room, may code run there?"
            ) from error
        self._run = loader.run

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = self._run(list(tensors))
        return outputs
