"""Every committed result says under which conditions it was had."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from hyvideo_rt.bench import conditions
from hyvideo_rt.bench.conditions import Workload, command_of
from hyvideo_rt.bench.markdown import RESULTS

WORKLOAD = {"weights", "sizes", "steps", "precision", "backends"}
MACHINE = {"date", "commit", "command", "python", "torch"}
OLDER = (
    "h100/footprint.json",
    "h100/footprint_triton.json",
    "h100/kernels.json",
)  # until a GPU runs them again


def conditions_in(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if "conditions" in part:
            yield part["conditions"]
        for each in part.values():
            yield from conditions_in(each)


@pytest.mark.parametrize(
    "path",
    sorted(set(RESULTS.rglob("*.json")) - set(RESULTS.rglob("suite.json"))),
    ids=lambda path: path.stem,
)
def test_every_result_names_machine_and_workload(path: Any) -> None:
    name = str(path.relative_to(RESULTS))
    found = list(conditions_in(json.loads(path.read_text())))
    assert found
    for each in found:
        missing = MACHINE - each.keys()
        assert not missing, name
        assert {"gpu", "cuda"} <= each.keys() or {"cpu", "threads"} <= each.keys(), name
        if name not in OLDER:
            assert each.keys() >= WORKLOAD, name


def test_a_gpus_clock_is_asked_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def answer(*command: str) -> str:
        events.append(command[1])
        return (
            "1755 MHz, 690.10 W, 52" if "clocks.sm" in command[1] else "Some GPU, 580.1, 700.00 W, 1980 MHz"
        )

    randn = torch.randn
    monkeypatch.setattr(conditions, "_output", answer)
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: randn(2, 2))
    monkeypatch.setattr(torch, "mm", lambda *_: events.append("product"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: events.append("end"))
    found = conditions.conditions(
        torch.device("cuda"), Workload("random", ["64x64x17"], 1, "bf16", ["eager"])
    )
    assert found["gpu"] == "Some GPU, 580.1, 700.00 W, 1980 MHz"
    assert found["gpu_under_load"] == {
        "clocks.sm": "1755 MHz",
        "power.draw": "690.10 W",
        "temperature.gpu": "52",
    }
    under_load = events.index("--query-gpu=clocks.sm,power.draw,temperature.gpu")
    assert events[under_load - 1 : under_load + 2] == ["product", events[under_load], "end"]


def test_a_result_names_the_command_that_made_it() -> None:
    assert command_of(["/a/python", "-m", "hyvideo_rt.bench.steps", "--runs", "3", "--out", "out.json"]) == (
        "python -m hyvideo_rt.bench.steps --runs 3"
    )
    assert (
        command_of(["/a/python", "/a/bin/hyvideo-rt", "bench", "--out", "f", "steps"])
        == "hyvideo-rt bench steps"
    )
    assert command_of(["/a/python", "-m", "a", "--settings", "8-bit weights"]) == (
        "python -m a --settings '8-bit weights'"
    )
