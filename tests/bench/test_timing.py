import time

import pytest

from hyvideo_rt.bench.timing import Ratio, Timing, interleave


def test_contestants_take_turns_and_warm_up_is_not_counted() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        time.sleep(0.2 if len(order) <= 2 else 0.02)

    def fast() -> None:
        order.append("fast")

    timings = interleave({"slow": slow, "fast": fast}, runs=3, warm_up=1)
    assert order == ["slow", "fast"] * 4
    assert timings["slow"].runs == timings["fast"].runs == 3
    assert 0.02 <= timings["slow"].p20_s <= timings["slow"].median_s <= timings["slow"].p80_s
    assert timings["fast"].median_s < 0.01


def test_a_ratio_knows_how_sure_it_is() -> None:
    steady = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.0, 1.01]
    noisy = [0.2, 5.0, 0.3, 4.0, 0.25, 6.0, 1.0, 2.0, 0.9]
    twice = Ratio.of([2 * s for s in steady], steady)
    assert twice.median == pytest.approx(2)
    assert twice.low == twice.high == pytest.approx(2)  # the same rounds: noise that both share is none
    assert twice.verdict == "win"
    assert Ratio.of(steady, [2 * s for s in steady]).verdict == "loss"
    unsure = Ratio.of(noisy, steady)
    assert unsure.low < 1 < unsure.high
    assert unsure.verdict == "tie"


def test_percentiles() -> None:
    timing = Timing.of([float(i) for i in range(11)])
    assert (timing.median_s, timing.p20_s, timing.p80_s) == pytest.approx((5, 2, 8))
    assert Timing.of([3.0]) == Timing(3.0, 3.0, 3.0, 1)
