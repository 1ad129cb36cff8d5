"""`.pt` files: only tensors come out, in windows of the memory map, and code in a pickle never runs."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hyvideo_rt.errors import WeightsError
from hyvideo_rt.weights.pickle_files import PickleFile

TENSORS = {"a": torch.randn(40, 30), "b": torch.randn(4)}


def test_large_pickle_is_mapped_anew_and_read_right(tmp_path: Path) -> None:
    big = torch.arange(3 << 20, dtype=torch.float32).reshape(-1, 64)  # 12 MiB: a dozen windows
    torch.save({"big": big, "last": big[-2:].clone()}, tmp_path / "x.pt")
    file = PickleFile(tmp_path / "x.pt")
    out = torch.empty(big.shape[0] - 1, 64)
    file.read_rows("big", 1, big.shape[0], out)
    assert torch.equal(out, big[1:])
    file.read_rows("last", 0, 2, out[:2])
    assert torch.equal(out[:2], big[-2:])


class WritesMarker:
    """A pickle of this runs `os.mkdir(marker)` when it is read without restriction."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_pickle_with_code_is_refused_unrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, marker = tmp_path / "x.pt", tmp_path / "marker"
    torch.save({**TENSORS, "evil": WritesMarker(marker)}, path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(WeightsError, match=r"x\.pt: refused, nothing in it was run"):
        PickleFile(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the pickle would have run code"


@pytest.mark.parametrize("keep", [0, 0.1, 0.9])
def test_cut_pickle(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "x.pt"
    torch.save(TENSORS, path)
    os.truncate(path, int(path.stat().st_size * keep))
    with pytest.raises(WeightsError, match=r"(?s)x\.pt: refused.*download it again"):
        PickleFile(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "got a list, expected a dictionary of tensors"),
        ({"a": 3}, "'a' is a int, expected a dense tensor"),
        ({3: torch.ones(1)}, "3 is a Tensor, expected a dense tensor by name"),
        ({"a": torch.ones(2, 2).to_sparse()}, "'a' is a Tensor, expected a dense tensor"),
        ({"a": torch.ones(1, device="meta")}, "a is quantised or without data"),
        ({"ema": {"a": torch.ones(1)}}, "has no dictionary of tensors under 'module'; its top level has ema"),
    ],
)
def test_pickles_of_other_things(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "x.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=message):
        PickleFile(path, wrappers=("module", "ema"), key="module")


def test_load_key_chooses_between_module_and_ema(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"module": {"a": torch.ones(1)}, "ema": {"a": torch.full((1,), 2.0)}, "step": 7}, path)
    out = torch.empty(1)
    for key, value in [("module", 1.0), ("ema", 2.0)]:
        PickleFile(path, wrappers=("module", "ema"), key=key).read_rows("a", 0, 1, out)
        assert out.item() == value
