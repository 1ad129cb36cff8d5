"""safetensors files: what is read back is what was written, and every damaged or hostile file is refused."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hyvideo_rt.errors import WeightsError
from hyvideo_rt.weights.safetensors_files import SafetensorsFile, open_sharded, write_safetensors
from hyvideo_rt.weights.tensor_files import TensorFile, TensorSource, TensorSpec

TENSORS = {"0.weight": torch.randn(4, 3), "0.bias": torch.randn(4), "2.bias": torch.randn(2)}
A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def read_all(file: TensorFile | TensorSource) -> dict[str, Tensor]:
    """Every tensor, in its stored dtype."""
    tensors = {name: torch.empty(spec.shape, dtype=spec.dtype) for name, spec in file.specs.items()}
    for name, tensor in tensors.items():
        file.read_rows(name, 0, tensor.shape[0], tensor)
    return tensors


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Bit by bit."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8))
        for name in a
    )


def write_shards(folder: Path, shards: Mapping[str, Mapping[str, Tensor]]) -> Path:
    for name, tensors in shards.items():
        save_file(dict(tensors), folder / name)
    index = folder / "model.safetensors.index.json"
    weight_map = {key: name for name, tensors in shards.items() for key in tensors}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def header_of(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    header: dict[str, Any] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header


def test_conversion_in_chunks_is_read_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyvideo_rt.weights.safetensors_files.CHUNK_BYTES", 1000)
    big = torch.randn(100, 37, dtype=torch.float64)
    save_file({"big": big}, tmp_path / "x.safetensors")
    out = torch.empty(95, 37)
    SafetensorsFile(tmp_path / "x.safetensors").read_rows("big", 2, 97, out)
    assert torch.equal(out, big[2:97].float())


@pytest.mark.parametrize("keep", [0, 5, 8, 60], ids=["empty", "no length", "no header", "half a header"])
def test_safetensors_cut_in_the_header(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path)
    os.truncate(path, keep)
    with pytest.raises(WeightsError, match=r"x\.safetensors: got \d+ bytes that do not hold a whole"):
        SafetensorsFile(path)


def test_safetensors_cut_in_the_data_names_the_first_tensor_lost(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path)
    last = max(header_of(path).items(), key=lambda item: item[1]["data_offsets"][1])[0]
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(WeightsError, match=f"truncated: it ends before the end of the tensor {last};"):
        SafetensorsFile(path)


def test_safetensors_cut_after_it_was_opened(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors")
    file = SafetensorsFile(tmp_path / "x.safetensors")
    os.truncate(file.path, file.size_bytes - 4)
    with pytest.raises(WeightsError, match="the file ends inside the tensor"):
        read_all(file)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (json.dumps({"a": A, "b": A}), "b is at bytes 0 to 8, expected 8 to 16"),  # both own the same bytes
        (json.dumps({"a": {**A, "shape": [3]}}), "a is at bytes 0 to 8, expected 0 to 12"),
        (json.dumps({"a": {**A, "shape": [-2]}}), "expected integers of at least 0"),
        (json.dumps({"a": {**A, "shape": [True, 2]}}), "expected integers of at least 0"),
        (json.dumps({"a": {**A, "dtype": "F4"}}), "got the dtype 'F4', expected one of"),
        (json.dumps({"a": {"dtype": "F32"}}), "malformed safetensors header"),
        (json.dumps({"a": 3}), "malformed safetensors header"),
        (json.dumps([A]), "malformed safetensors header"),
        ("no json", "malformed safetensors header"),
        ("[" * 100_000, "malformed safetensors header"),
        (f'{{"a": {json.dumps(A)}, "a": {json.dumps(A)}}}', "the key 'a' appears twice"),
        (
            json.dumps({"a": {**A, "shape": [1], "data_offsets": [0, 4]}}),
            "8 bytes of data, the header describes 4",
        ),
    ],
)
def test_hostile_headers_are_refused(tmp_path: Path, header: str, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
    with pytest.raises(WeightsError, match=message):
        SafetensorsFile(path)


def test_shards_load_like_one_file(tmp_path: Path) -> None:
    first = {name: TENSORS[name] for name in ["0.weight", "2.bias"]}
    last = {"0.bias": TENSORS["0.bias"]}
    source = open_sharded(write_shards(tmp_path, {"a.safetensors": first, "b.safetensors": last}))
    assert same(read_all(source), TENSORS)
    assert source.nbytes == sum(t.nbytes for t in TENSORS.values())


def test_tensor_in_two_shards_is_named(tmp_path: Path) -> None:
    index = write_shards(tmp_path, {"a.safetensors": TENSORS, "b.safetensors": {"2.bias": TENSORS["2.bias"]}})
    message = r"b\.safetensors: got tensors that a\.safetensors holds too.*2\.bias"
    with pytest.raises(WeightsError, match=message):
        open_sharded(index)


def test_index_and_shards_must_agree(tmp_path: Path) -> None:
    index = write_shards(tmp_path, {"a.safetensors": TENSORS})
    content = json.loads(index.read_text())
    del content["weight_map"]["2.bias"]
    index.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"2\.bias should lie in no file and lies in a\.safetensors"):
        open_sharded(index)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    index = write_shards(tmp_path, {"a.safetensors": TENSORS})
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names the shard a\.safetensors, which is missing"):
        open_sharded(index)


@pytest.mark.parametrize("name", ["../a.safetensors", "{absolute}", "link.safetensors", ".", ""])
def test_index_cannot_point_outside_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    outside = tmp_path / "a.safetensors"
    save_file(TENSORS, outside)
    (folder / "link.safetensors").symlink_to(outside)
    index = folder / "model.safetensors.index.json"
    shard = name.format(absolute=outside)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(TENSORS, shard)}))
    with pytest.raises(WeightsError, match="expected a file in the same folder"):
        open_sharded(index)


def test_links_of_a_hub_cache_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for path in [write_shards(blobs, {"a.safetensors": TENSORS}), blobs / "a.safetensors"]:
        (snapshot / path.name).symlink_to(path.rename(blobs / f"hash-{path.name}"))
    source = open_sharded(snapshot / "model.safetensors.index.json")
    assert same(read_all(source), TENSORS)


def test_written_file_is_what_the_library_reads(tmp_path: Path) -> None:
    narrow = {"half": torch.randn(5, 3).half(), "eight": torch.randn(3, 2).to(torch.float8_e4m3fn)}
    tensors = TENSORS | narrow
    specs = {name: TensorSpec(tuple(t.shape), t.dtype) for name, t in tensors.items()}
    path = tmp_path / "x.safetensors"
    write_safetensors(path, specs, iter(tensors.values()), {"format": "pt"})
    assert same(load_file(path), tensors)
    assert same(read_all(SafetensorsFile(path)), tensors)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert SafetensorsFile(path).specs == specs
