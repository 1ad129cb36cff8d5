"""safetensors files: checked headers, reading straight into the destination, shards, and a streaming writer.

Files are read with plain `read` calls instead of through the library's memory map: mapped pages count as
resident memory, so a map would hold the checkpoint a second time while it is being loaded.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.errors import WeightsError
from hyvideo_rt.weights.tensor_files import TensorSource, TensorSpec, read_json, some, unique_keys

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
CHUNK_BYTES = 64 << 20  # of a conversion or a copy to another device


class SafetensorsFile:
    """One safetensors file whose header was checked against the file's size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        header, self.size_bytes = _read_header(path)
        self.header_digest = hashlib.sha256(header).hexdigest()
        self._data_start = 8 + len(header)
        self.specs, self._offsets = _parse_header(path, header, self.size_bytes - self._data_start)

    def read_rows(self, name: str, start: int, stop: int, out: Tensor) -> None:
        spec = self.specs[name]
        try:
            file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise WeightsError(f"{self.path}: cannot be read: {error.strerror}") from error
        with file:
            file.seek(self._data_start + self._offsets[name] + start * spec.row_bytes)
            if out.dtype == spec.dtype and out.device.type == "cpu" and out.is_contiguous():
                self._fill(file, name, out)
                return
            step = max(1, CHUNK_BYTES // max(1, spec.row_bytes))
            for row in range(0, stop - start, step):
                part = out[row : row + step]
                buffer = torch.empty(part.shape, dtype=spec.dtype, pin_memory=out.is_cuda)
                self._fill(file, name, buffer)
                part.copy_(buffer)

    def _fill(self, file: FileIO, name: str, out: Tensor) -> None:
        view = _bytes_of(out)
        while len(view):
            count = file.readinto(view)
            if not count:
                raise WeightsError(
                    f"{self.path}: the file ends inside the tensor {name}; it changed while open"
                )
            view = view[count:]


def open_sharded(index_path: Path) -> TensorSource:
    """The shards that a `*.safetensors.index.json` names: files beside it that hold exactly what it says."""
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise WeightsError(f"{index_path}: got no table 'weight_map' of tensor names to file names")
    shards = [_shard_path(index_path, name) for name in sorted(set(weight_map.values()))]
    source = TensorSource([SafetensorsFile(path) for path in shards])
    held = {name: source.path_of(name).name for name in source.specs}
    if wrong := [
        name for name in sorted(held.keys() | weight_map.keys()) if held.get(name) != weight_map.get(name)
    ]:
        first = wrong[0]
        raise WeightsError(
            f"{index_path}: {first} should lie in {weight_map.get(first, 'no file')} and lies in "
            f"{held.get(first, 'none')}; the index and the shards disagree about: {some(wrong)}\n"
            f"  download the checkpoint again: index and shards are of different versions"
        )
    return source


def _shard_path(index_path: Path, name: str) -> Path:
    """A hub cache keeps index and shards as links into one folder of blobs, so that folder is as good."""
    path = index_path.parent / name
    homes = (index_path.parent.resolve(), index_path.resolve().parent)
    if Path(name).name != name or path.resolve().parent not in homes:
        raise WeightsError(f"{index_path}: got the shard {name!r}, expected a file in the same folder")
    if not path.is_file():
        raise WeightsError(
            f"{index_path}: names the shard {name}, which is missing\n  download it into {path}"
        )
    return path


def write_safetensors(
    path: Path, specs: Mapping[str, TensorSpec], tensors: Iterable[Tensor], metadata: Mapping[str, str]
) -> None:
    """Write `tensors`, which come one by one in the order of `specs`: only one is in memory at a time."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, spec in specs.items():
        header[name] = {
            "dtype": DTYPE_NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.nbytes],
        }
        offset += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, spec), tensor in zip(specs.items(), tensors, strict=True):
            assert (tuple(tensor.shape), tensor.dtype) == (spec.shape, spec.dtype), name
            file.write(_bytes_of(tensor.contiguous()))


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def _read_header(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise WeightsError(
                    f"{path}: got {size} bytes that do not hold a whole safetensors header; "
                    f"the file is truncated or no safetensors file\n  download it again"
                )
            return file.read(length), size
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error


def _parse_header(path: Path, header: bytes, data_bytes: int) -> tuple[dict[str, TensorSpec], dict[str, int]]:
    try:
        entries = json.loads(header, object_pairs_hook=unique_keys)
        entries.pop("__metadata__", None)
        parsed = [(name, *_parse_entry(entry)) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path}: got a malformed safetensors header: {error}") from error
    parsed.sort(key=lambda item: item[2:])
    end = 0
    for name, spec, begin, stop in parsed:
        if begin != end or stop - begin != spec.nbytes:
            raise WeightsError(
                f"{path}: {name} is at bytes {begin} to {stop}, expected {end} to {end + spec.nbytes}"
            )
        end = stop
        if end > data_bytes:
            raise WeightsError(
                f"{path}: the file is truncated: it ends before the end of the tensor {name}; "
                f"got {data_bytes} bytes of data\n  download it again"
            )
    if end != data_bytes:
        raise WeightsError(f"{path}: got {data_bytes} bytes of data, the header describes {end}")
    return {name: spec for name, spec, _, _ in parsed}, {name: begin for name, _, begin, _ in parsed}


def _parse_entry(entry: Any) -> tuple[TensorSpec, int, int]:
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"got the dtype {entry['dtype']!r}, expected one of {', '.join(DTYPES)}")
    if not all(type(value) is int and value >= 0 for value in [*shape, begin, end]):
        raise ValueError(f"got the shape {shape} at {begin} to {end}, expected integers of at least 0")
    return TensorSpec(tuple(shape), DTYPES[entry["dtype"]]), begin, end
