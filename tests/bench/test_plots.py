"""Pictures show what the results say: their bars, lines and limits are read back from the axes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyvideo_rt.bench import plots
from hyvideo_rt.bench.markdown import load_steps
from hyvideo_rt.errors import InvalidRequest

pyplot = pytest.importorskip("matplotlib.pyplot")
ABOUT = {
    "cpu": "a CPU",
    "torch": "2",
    "commit": "abc",
    "command": "python -m x",
    "sizes": ["64x64x17"],
    "steps": 2,
}
PLAIN, HALF, NARROW = (None, "float32"), ("fp32", "bfloat16"), ("8-bit products", "bfloat16")
RUNGS = {"diffusers": PLAIN, "hyvideo_rt": PLAIN, "bf16": HALF, "fp8 products": NARROW}
LEAST_S = {PLAIN: 0.002, HALF: 0.001, NARROW: 0.0005}


@pytest.fixture
def axis() -> Iterator[Any]:
    figure, axis = pyplot.subplots()
    yield axis
    pyplot.close(figure)


def steps_at(size: str, tokens: int) -> dict[str, Any]:
    """Of rungs that take 10, 9, 8 and 7 ms per 100 tokens; one more did not run."""
    about = {"stage": "denoise", "size": size, "tokens": tokens}
    rows = [
        about
        | {"rung": rung, "quality": kind[0], "dtype": kind[1], "share_of_limit": 0.25}
        | {"median_s": (0.010 - 0.001 * i) * tokens / 100, "least_s": LEAST_S[kind] * tokens / 100}
        for i, (rung, kind) in enumerate(RUNGS.items())
    ]
    absent = about | {"rung": "xDiT", "quality": None, "dtype": "float32", "reason": "not here"}
    return {"conditions": ABOUT, "limits": {"copy_gb_s": 10}, "rows": [*rows, absent]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for size, tokens in (("64x64x17", 80), ("64x96x17", 120)):
        (tmp_path / f"steps-{size}.json").write_text(json.dumps(steps_at(size, tokens)))
    return tmp_path


def test_sizes_in_files_of_their_own_are_one_picture(folder: Path, axis: Any) -> None:
    plots.latency(load_steps(str(folder)), axis)
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert list(lines) == [
        *("diffusers", "hyvideo_rt", "bf16 (lossy)", "fp8 products (lossy)"),
        *("limit, float32", "limit, bfloat16", "limit, bfloat16, 8-bit products"),
    ]
    assert list(lines["diffusers"].get_xdata()) == [80, 120]
    assert list(lines["diffusers"].get_ydata()) == pytest.approx([8, 12])
    assert list(lines["limit, bfloat16, 8-bit products"].get_ydata()) == pytest.approx([0.4, 0.6])
    styles = [str(line._unscaled_dash_pattern) for name, line in lines.items() if name.startswith("limit")]
    assert len(set(styles)) == 3


def test_the_waterfall_is_of_the_largest_size(folder: Path, axis: Any) -> None:
    plots.waterfall(load_steps(str(folder)), axis)
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([12, 10.8, 9.6, 8.4])
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["diffusers", "hyvideo_rt", "bf16 (lossy)", "fp8 products (lossy)"]
    assert axis.texts[0].get_text() == "12 ms, 25 % of limit"
    assert axis.get_xlabel() == "ms per step at 64x96x17"


def test_a_request_is_bars_from_end_to_end(axis: Any) -> None:
    ends = [
        ("encode", 0, 0.0),
        ("encode", 1, 1.0),
        ("denoise", 0, 1.0),
        ("denoise", 1, 3.0),
        ("denoise", 2, 6.0),
    ]
    timeline = [{"stage": stage, "done": done, "at_s": at} for stage, done, at in ends]
    plots.request({"conditions": ABOUT, "timeline": timeline, "seconds": {"video": 6.0}}, axis)
    assert [(bar.get_x(), bar.get_width()) for bar in axis.patches] == [(0, 1), (1, 2), (3, 3)]


def test_operators_and_attention(axis: Any) -> None:
    memory = [
        {"kernel": "gate", "quality": None, "eager": {"gb_s": 50}, "triton": {"gb_s": 90}},
        {"kernel": "gelu_rows", "quality": "8-bit products", "eager": {"gb_s": 20}, "triton": {"gb_s": 80}},
    ]
    ran = {"backend": "fa3-fp8", "size": "64x64x17", "quality": "8-bit attention", "tf_s": 937.0, "ms": 186.0}
    result = {
        "conditions": ABOUT,
        "limits": {"copy_gb_s": 100, "matrix_tf_s": {"bfloat16": 700, "float8_e4m3fn": 1400}},
        "memory": memory,
        "attention": [ran, {"backend": "fa4", "error": "no"}],
    }
    plots.operators(result, axis)
    assert [bar.get_width() for bar in axis.patches] == [50, 20, 90, 80]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["gate", "gelu_rows (lossy)"]
    assert list(axis.get_lines()[0].get_xdata()) == [100, 100]
    axis.clear()
    plots.attention(result, axis)
    assert [bar.get_width() for bar in axis.patches] == [937]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["fa3-fp8 64x64x17 (lossy)"]
    assert [line.get_xdata()[0] for line in axis.get_lines()] == [700, 1400]


def test_every_lossy_number_has_its_words(folder: Path) -> None:
    one, other = plots.lossy_notes(load_steps(str(folder))["rows"], folder)
    assert one.startswith("lossy, bf16 instead of fp32: ")
    assert other.startswith("lossy, 8-bit products: ")
    assert all(word in other for word in ("dB", "SSIM", "latents off by", "at most", "points"))


def test_what_is_there_is_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["plots", str(folder), str(folder / "gpu")])
    assert plots.main() == 0
    assert sorted(path.name for path in folder.glob("*.png")) == ["gpu-latency.png", "gpu-waterfall.png"]
    monkeypatch.setattr(sys, "argv", ["plots", str(folder / "empty"), "x"])
    with pytest.raises(InvalidRequest, match="nothing to draw"):
        plots.main()
