"""A slower result is noticed; what cannot be compared is refused; the ratios of this commit hold in CI."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hyvideo_rt.bench.compare import PASSES, SAME, compare, load, ratios_of
from hyvideo_rt.bench.markdown import ROOT
from hyvideo_rt.bench.quality_tables import lossy_words
from hyvideo_rt.errors import InvalidRequest

BASELINE = ROOT / "bench" / "baselines" / "cpu.json"
MARGIN = 0.35  # other CPUs have other ratios: this is for what breaks, not for what drifts


def result(video: float, spread: float = 0.01) -> dict[str, Any]:
    ratio = {"median": video, "low": video * (1 - spread), "high": video * (1 + spread), "rounds": 9}
    stages = {"video": {"hyvideo_rt": {"median_s": 0.2}, "ratios": {"eager": ratio}}}
    conditions = {"weights": "tiny", "sizes": ["64x64x17"], "steps": 20, "precision": "dit float32"}
    return {"conditions": conditions, "stages": stages}


@pytest.mark.parametrize(
    ("after", "word"),
    [(result(3.0), "same"), (result(2.8), "same"), (result(2.6), "slower"), (result(3.4), "faster")],
)
def test_the_verdict(after: dict[str, Any], word: str) -> None:
    (verdict,) = compare(result(3.0), after, margin=0.1)
    assert (verdict.name, verdict.word) == ("video eager", word)


def test_noise_is_not_a_loss() -> None:
    (verdict,) = compare(result(3.0), result(2.5, spread=0.2), margin=0.1)
    assert verdict.word == "same"


@pytest.mark.parametrize("changed", SAME)
def test_other_settings_are_refused(changed: str) -> None:
    after = copy.deepcopy(result(3.0))
    after["conditions"][changed] = "another"
    with pytest.raises(InvalidRequest, match="expected the same of both"):
        compare(result(3.0), after, margin=0.1)


def test_results_of_two_benchmarks_are_refused() -> None:
    other = result(3.0) | {"stages": {}, "rows": [{"stage": "denoise", "rung": "x", "ratio": ratio_row()}]}
    assert [name for name, _ in ratios_of(other)] == ["denoise x"]
    with pytest.raises(InvalidRequest, match="some that both have"):
        compare(result(3.0), other, margin=0.1)


def ratio_row() -> dict[str, float]:
    return {"median": 1.5, "low": 1.4, "high": 1.6, "rounds": 9}


def test_a_ratio_that_is_lost_is_not_passed_over() -> None:
    before = result(3.0)
    before["stages"]["video"]["ratios"]["compiled"] = ratio_row()
    words = {each.name: each.word for each in compare(before, result(3.0), margin=0.1)}
    assert words == {"video eager": "same", "video compiled": "missing"}


def test_a_lossy_ratio_says_what_it_does_to_videos() -> None:
    rows = [
        {
            "stage": "denoise",
            "size": "64x64x17",
            "rung": "fp8",
            "quality": "8-bit products",
            "ratio": ratio_row(),
        },
        {"kernel": "gelu_rows", "quality": None, "ratios": {"eager": ratio_row()}},
    ]
    lossy, plain = (name for name, _ in ratios_of({"rows": rows}))
    assert lossy == f"denoise 64x64x17 fp8 {lossy_words('8-bit products')}"
    assert plain == "gelu_rows eager"


def test_few_rounds_tell_nothing() -> None:
    after = result(1.0)
    after["stages"]["video"]["ratios"]["eager"] |= {"low": None, "high": None, "rounds": 2}
    (verdict,) = compare(result(3.0), after, margin=0.1)
    assert verdict.word == "unsure"


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_what_is_no_result(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(InvalidRequest, match=r"result\.json"):
        load(path)


BEFORE = "video eager: 3.00 (2.97-3.03) before"


@pytest.mark.parametrize(
    ("now", "status", "said"),
    [
        ({"median": 3.1, "low": 3.0, "high": 3.2}, 0, f"same     {BEFORE}, 3.10 (3.00-3.20) now\n"),
        (
            {"median": 1.0, "low": 0.99, "high": 1.01},
            1,
            f"slower   {BEFORE}, no difference (0.99-1.01) now\n",
        ),
        (
            {"median": 3.1, "low": None, "high": None, "rounds": 2},
            1,
            f"unsure   {BEFORE}, 3.10 (2 rounds, no interval) now\n",
        ),
    ],
)
def test_the_exit_status(tmp_path: Path, now: dict[str, Any], status: int, said: str) -> None:
    one, other, after = tmp_path / "one.json", tmp_path / "other.json", result(3.0)
    after["stages"]["video"]["ratios"]["eager"] |= now
    one.write_text(json.dumps(result(3.0)))
    other.write_text(json.dumps(after))
    command = [sys.executable, "-m", "hyvideo_rt.cli.main", "bench", "compare", str(one), str(other)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, said)


@pytest.mark.alone
@pytest.mark.timeout(900)  # engines and diffusers are compiled
def test_this_commit_is_as_fast_as_the_baseline(tmp_path: Path) -> None:
    out = tmp_path / "end_to_end.json"
    command = [sys.executable, "-m", "hyvideo_rt.bench.end_to_end", "--runs", "5", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    verdicts = compare(load(BASELINE), load(out), MARGIN)
    assert {"video eager", "video compiled"} <= {each.name for each in verdicts}
    lost = [
        f"{each.word} {each.name}: {each.before} before, {each.after} now"
        for each in verdicts
        if each.word not in PASSES
    ]
    assert not lost
