"""What the server adds to a video, and a burst of creates: the whole benchmark, small."""

import json
import subprocess
import sys
from pathlib import Path


def test_overhead_and_burst(tmp_path: Path) -> None:
    out = tmp_path / "server_load.json"
    words = ["--pairs", "2", "--videos", "1", "--burst", "20", "--connections", "4", "--queue", "3"]
    command = [sys.executable, "-m", "hyvideo_rt.bench.server_load", *words, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    result = json.loads(out.read_text())
    overhead, burst = result["overhead"], result["burst"]
    for way in ("followed", "sync"):
        ratio = overhead["ratios"][way]
        assert (overhead[way]["runs"], ratio["rounds"]) == (2, 2), "one of each pair"
        assert ratio["low"] is None, "two pairs tell nothing about others"
        assert ratio["median"] == overhead[way]["median_s"] / overhead["bare"]["median_s"]
        assert 0 < overhead["added_ms"][way] < 1e3 * overhead[way]["median_s"]
    accepted, refused = burst["statuses"]["200"], burst["statuses"]["429"]
    assert accepted + refused == 20
    assert 3 <= accepted == burst["completed_in_all"]
