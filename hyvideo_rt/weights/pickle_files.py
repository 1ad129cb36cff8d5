"""Tensors in `.pt` and `.bin` files: torch's restricted unpickler, so no code runs, and memory-mapped."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.errors import WeightsError
from hyvideo_rt.weights.tensor_files import TensorSpec, some

MAX_WINDOW_BYTES = 1 << 30
MIN_WINDOW_BYTES = 1 << 20


class PickleFile:
    """A dictionary of tensors saved by `torch.save` in the zip format.

    If the file's top level has one of `wrappers`, the tensors are those of its entry `key`, else the file is
    the dictionary. `suffix` is appended to every name.

    Mapped pages count as resident memory until the map is closed. The file is therefore mapped anew after a
    sixteenth of it, and at most 1 GiB, was read.
    """

    def __init__(
        self, path: Path, *, wrappers: tuple[str, ...] = (), key: str = "", suffix: str = ""
    ) -> None:
        self.path = path
        self._wrappers, self._key, self._suffix = wrappers, key, suffix
        self._mapped = self._map()
        self.specs = {name: TensorSpec(tuple(t.shape), t.dtype) for name, t in self._mapped.items()}
        self.size_bytes = path.stat().st_size
        self.header_digest = hashlib.sha256(repr(sorted(self.specs.items())).encode()).hexdigest()
        self._window = max(MIN_WINDOW_BYTES, min(MAX_WINDOW_BYTES, self.size_bytes // 16))
        self._touched = 0

    def read_rows(self, name: str, start: int, stop: int, out: Tensor) -> None:
        row_bytes = max(1, self.specs[name].row_bytes)
        step = max(1, self._window // row_bytes)
        for row in range(start, stop, step):
            end = min(row + step, stop)
            out[row - start : end - start].copy_(self._mapped[name][row:end])
            self._touched += (end - row) * row_bytes
            if self._touched >= self._window:
                self._mapped, self._touched = {}, 0
                self._mapped = self._map()

    def _map(self) -> dict[str, Tensor]:
        content = _load(self.path)
        if any(wrapper in content for wrapper in self._wrappers):
            content = _entry(self.path, content, self._key)
        return {name + self._suffix: tensor for name, tensor in _checked(self.path, content)}


def _load(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{path}: refused, nothing in it was run; expected a file of tensors alone that torch.save wrote "
            f"in its zip format, got: {reason}\n"
            f"  download it again if it is incomplete, or convert it to safetensors where you trust it"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: got a {type(content).__name__}, expected a dictionary of tensors")
    return content


def _entry(path: Path, content: dict[str, Any], key: str) -> dict[str, Any]:
    entry = content.get(key)
    if not isinstance(entry, dict):
        raise WeightsError(
            f"{path}: has no dictionary of tensors under {key!r}; "
            f"its top level has {some(list(map(str, content)))}"
        )
    return entry


def _checked(path: Path, content: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise WeightsError(
                f"{path}: {name!r} is a {type(tensor).__name__}, expected a dense tensor by name"
            )
        if tensor.device.type != "cpu" or tensor.is_quantized:
            raise WeightsError(f"{path}: {name} is quantised or without data, expected plain numbers")
        yield name, tensor.detach()
