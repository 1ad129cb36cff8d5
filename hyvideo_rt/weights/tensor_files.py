"""Named tensors in files: what a header says of each, and rows of them on demand.

`safetensors_files` and `pickle_files` implement `TensorFile`; `TensorSource` joins a component's files.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from hyvideo_rt.errors import WeightsError


@dataclass(frozen=True)
class TensorSpec:
    """What a header says about one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class TensorFile(Protocol):
    """One file of tensors."""

    @property
    def path(self) -> Path: ...

    @property
    def specs(self) -> Mapping[str, TensorSpec]: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def header_digest(self) -> str:
        """Identifies names, shapes, dtypes and their order; not the values."""

    def read_rows(self, name: str, start: int, stop: int, out: Tensor) -> None:
        """Rows [start, stop) along dim 0 into `out`, which may have another dtype or device."""


class TensorSource:
    """The tensors of one or more files by name; a name that two files hold is an error."""

    def __init__(self, files: Sequence[TensorFile]) -> None:
        self.files = tuple(files)
        self._file_of: dict[str, TensorFile] = {}
        self.specs: dict[str, TensorSpec] = {}
        for file in files:
            if twice := [name for name in file.specs if name in self._file_of]:
                raise WeightsError(
                    f"{file.path}: got tensors that {self._file_of[twice[0]].path.name} holds too, "
                    f"expected each once: {some(twice)}"
                )
            self._file_of.update(dict.fromkeys(file.specs, file))
            self.specs.update(file.specs)

    @property
    def label(self) -> str:
        """The file, or the folder of several."""
        return str(self.files[0].path if len(self.files) == 1 else self.files[0].path.parent)

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.specs.values())

    def path_of(self, name: str) -> Path:
        return self._file_of[name].path

    def read_rows(self, name: str, start: int, stop: int, out: Tensor) -> None:
        self._file_of[name].read_rows(name, start, stop, out)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; a key that appears twice is an error."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: got no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: got JSON of type {type(content).__name__}, expected an object")
    return content


def some(names: Sequence[str], limit: int = 8) -> str:
    """At most `limit` names for an error message."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def unique_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """For json's `object_pairs_hook`: a key that appears twice is an error."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} appears twice")
        content[key] = value
    return content
