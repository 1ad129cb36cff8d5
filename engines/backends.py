"""The compilers, by name. None of their libraries is imported before it is needed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from hyvideo_rt.engines.inductor import Inductor
from hyvideo_rt.engines.manifest import TensorInfo
from hyvideo_rt.engines.openvino import OpenVINO
from hyvideo_rt.engines.spec import BackendName
from hyvideo_rt.engines.tensorrt import TensorRT

Run = Callable[..., Sequence[Tensor]]  # called with all inputs, then all weights


class Backend(Protocol):
    """`artefact` is the name of the file that holds an engine."""

    artefact: str

    def source(self) -> str:
        """The digest of the code that this backend's engines are made from."""

    def libraries(self, device: torch.device) -> dict[str, str]:
        """Versions that must be the same where an engine is built and where it runs."""

    def load(self, path: Path, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Run:
        """Of a file whose tensors are these. Raises EngineError if the library is missing or refuses it."""


INDUCTOR, OPENVINO = Inductor(), OpenVINO()
TENSORRT = {"tensorrt": TensorRT("tensorrt"), "tensorrt_rtx": TensorRT("tensorrt_rtx")}
BACKENDS: dict[BackendName, Backend] = {
    "inductor": INDUCTOR,
    "openvino": OPENVINO,
    "tensorrt": TENSORRT["tensorrt"],
    "tensorrt_rtx": TENSORRT["tensorrt_rtx"],
}
