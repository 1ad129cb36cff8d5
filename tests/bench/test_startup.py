"""A cold start, phase by phase."""

from pathlib import Path

from hyvideo_rt.bench.startup import PHASES, measure


def test_phases_follow_one_another(tmp_path: Path) -> None:
    result = measure(1, tmp_path, only_eager=True)
    assert set(result["processes"]) == {"torch", "hyvideo_rt", "diffusers"}
    assert result["processes"].pop("torch")["import_s"]["median_s"] > 0.1
    for row in result["processes"].values():
        ends = [row[phase]["median_s"] for phase in PHASES]
        assert ends == sorted(ends)
        assert 0.1 < ends[0] < ends[-1] < 120
        assert 100e6 < row["now_bytes"] <= row["peak_bytes"] < 5e9
    assert result["ratios"] == {}, "one round has no interval"
