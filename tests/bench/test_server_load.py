"""What the server adds to a video, and a burst of creates: the whole benchmark, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hyvideo_rt.bench.server_load import summary


def test_servers_whose_workers_differ_agree_about_the_ratio() -> None:
    """A tenth more than the pipeline alone, at 1 s and at 2 s."""
    races = [
        (
            {"bare": [unit] * 3, "sync": [1.1 * unit - 0.01, 1.1 * unit, 1.1 * unit + 0.02]},
            {"sync": [0.1] * 3},
        )
        for unit in (1.0, 1.0, 2.0)
    ]
    found = summary(races)
    assert found["ratios"]["sync"]["median"] == pytest.approx(1.1)
    assert 1.089 < found["ratios"]["sync"]["low"] < found["ratios"]["sync"]["high"] < 1.121
    assert (found["bare"]["runs"], found["servers"]) == (9, 3)
    assert found["added_ms"] == {"sync": 100.0}


def test_overhead_and_burst(tmp_path: Path) -> None:
    out = tmp_path / "server_load.json"
    words = ["--servers", "2", "--videos", "1", "--burst", "20", "--connections", "4", "--queue", "3"]
    command = [sys.executable, "-m", "hyvideo_rt.bench.server_load", *words, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    result = json.loads(out.read_text())
    overhead, burst = result["overhead"], result["burst"]
    for way in ("followed", "sync"):
        ratio = overhead["ratios"][way]
        assert (overhead[way]["runs"], ratio["rounds"]) == (2, 2), "one of each server"
        assert ratio["low"] is None, "two videos tell nothing about others"
        assert 0 < overhead["added_ms"][way] < 1e3 * overhead[way]["median_s"]
    accepted, refused = burst["statuses"]["200"], burst["statuses"]["429"]
    assert accepted + refused == 20
    assert 3 <= accepted == burst["completed_in_all"]
