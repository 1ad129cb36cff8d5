"""A cold start, phase by phase."""

from itertools import pairwise
from pathlib import Path

import pytest

from hyvideo_rt.bench.startup import (
    PHASES,
    ContestantFailed,
    measure,
    ratios_of,
    run_script,
    take_turns,
)

SLOW = """
import torch
start = time.perf_counter()
held = b"x" * 300_000_000
del held
time.sleep(0.3)
mark("import_s")
time.sleep(0.2)
mark("load_s")
"""
FAILS = "raise ModuleNotFoundError(\"No module named 'diffusers'\")"


def test_a_process_is_timed_from_its_start_and_its_memory_is_its_own(tmp_path: Path) -> None:
    found = run_script(SLOW, tmp_path)
    assert 0.3 < found["import_s"] < 5
    assert 0.2 < found["load_s"] - found["import_s"] < 5
    assert found["peak"] - found["now"] > 200e6


def test_contestants_take_turns_and_the_first_only_warms(tmp_path: Path) -> None:
    order = tmp_path / "order"
    script = f"open({str(order)!r}, 'a').write('%s'); mark('import_s')"
    rounds, reasons = take_turns({name: script % name for name in "ab"}, 2, tmp_path)
    assert order.read_text() == "ababab"
    assert {name: len(each) for name, each in rounds.items()} == {"a": 2, "b": 2}
    assert reasons == {}


def test_a_peer_that_fails_has_its_reason_and_no_ratio(tmp_path: Path) -> None:
    works = "mark('first_step_s')"
    rounds, reasons = take_turns({"hyvideo_rt": works, "diffusers": FAILS}, 1, tmp_path)
    assert reasons == {"diffusers": "it ended with 1: ModuleNotFoundError: No module named 'diffusers'"}
    assert len(rounds["hyvideo_rt"]) == 1
    assert ratios_of(rounds) == {}
    with pytest.raises(ContestantFailed, match="No module named 'diffusers'"):
        take_turns({"hyvideo_rt": FAILS}, 1, tmp_path)


def test_a_ratio_is_their_first_step_over_ours() -> None:
    rounds = {"torch": [{"import_s": 1.0}], "hyvideo_rt": [{"first_step_s": 2.0}]}
    found = ratios_of(rounds | {"diffusers": [{"first_step_s": 5.0}]})
    assert set(found) == {"hyvideo_rt"}
    assert found["hyvideo_rt"]["median"] == 2.5


def test_everyone_makes_a_video(tmp_path: Path) -> None:
    result = measure(1, tmp_path, only_eager=True)
    rows = result["processes"]
    assert set(rows) == {"torch", "hyvideo_rt", "diffusers"}
    assert set(rows.pop("torch")) == {"import_s", "now_bytes", "peak_bytes"}
    for row in rows.values():
        ends = [row[phase]["median_s"] for phase in PHASES]
        assert all(after - before > 0.005 for before, after in pairwise(ends))
        assert 100e6 < row["now_bytes"] <= row["peak_bytes"] < 5e9
    assert result["ratios"]["hyvideo_rt"]["low"] is None
