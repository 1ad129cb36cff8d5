"""Engines: a row per backend and size, or the reason why there is none, each kept at once."""

import sys
from pathlib import Path
from typing import Any

import pytest

from hyvideo_rt.bench import engines
from hyvideo_rt.bench.building import build
from hyvideo_rt.bench.engines import Visit, measure
from hyvideo_rt.bench.networks import embedded
from hyvideo_rt.errors import EngineError

SIZES = ("64x64x17", "64x96x17")


def test_a_size_that_cannot_be_built_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def fails_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise EngineError("the process of build_here was ended by SIGSEGV")
        return build(*arguments)

    monkeypatch.setattr(engines, "build", fails_once)
    found: dict[str, Any] = {"bind_s": None, "backend": "openvino", "rows": []}
    kept: list[dict[str, Any]] = []
    measure(Visit(embedded(), "openvino", tmp_path), SIZES, 5, found, kept.append)
    failed, row = found["rows"]
    assert failed == {
        "size": "64x64x17",
        "reason": "EngineError: the process of build_here was ended by SIGSEGV",
    }
    assert kept == [{"backend": "openvino"} | each for each in found["rows"]]
    files = sum(path.stat().st_size for path in (tmp_path / "engines").rglob("engine.*"))
    assert (row["size"], row["engines"], row["bytes"]) == ("64x96x17", 3, files)
    assert found["bind_s"] > 0
    assert 0 < row["swap_s"] < row["load_s"] < row["build_s"]
    assert 0 < row["host_steady_bytes"] <= row["host_peak_bytes"] < 1e9
    assert row["step"]["ratio"]["median"] == pytest.approx(
        row["step"]["eager"]["median_s"] / row["step"]["engines"]["median_s"]
    )


def test_a_backend_that_is_not_here_says_so_for_every_size_and_binds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    found: dict[str, Any] = {"bind_s": None, "backend": "tensorrt", "rows": []}
    measure(Visit(embedded(), "tensorrt", tmp_path), SIZES, 5, found, lambda row: None)
    assert found["bind_s"] is None
    assert [row["size"] for row in found["rows"]] == list(SIZES)
    assert all("needs the package tensorrt" in row["reason"] for row in found["rows"])
