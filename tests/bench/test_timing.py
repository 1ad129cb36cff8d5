import time

import pytest

from hyvideo_rt.bench.timing import LEAST_ROUNDS, Ratio, Timing, interleave


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
    assert unsure.low is not None
    assert unsure.high is not None
    assert unsure.low < 1 < unsure.high
    assert unsure.verdict == "tie"


def test_few_rounds_have_no_interval_and_no_winner() -> None:
    slow, fast = [10.0, 12.0, 11.0, 10.0, 12.0], [9.0, 10.0, 9.0, 9.5, 9.0]
    for rounds in range(1, LEAST_ROUNDS):
        few = Ratio.of(slow[:rounds], fast[:rounds])
        assert (few.low, few.high, few.rounds, few.verdict) == (None, None, rounds, "unknown")
    assert str(Ratio.of(slow[:2], fast[:2])) == "1.16 (2 rounds, no interval)"
    assert Ratio.of(slow, fast).verdict == "win"


def test_percentiles() -> None:
    timing = Timing.of([float(i) for i in range(11)])
    assert (timing.median_s, timing.p20_s, timing.p80_s) == pytest.approx((5, 2, 8))
    assert Timing.of([3.0]) == Timing(3.0, 3.0, 3.0, 1)
