"""Estimates, admission, order and the watchdog: arithmetic, without a process."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stubs import SQUARE, WIDE, job_of, request_for

from hyvideo_rt.config import MODELS
from hyvideo_rt.server import admission
from hyvideo_rt.server.admission import NoRoom, QueueFull, Refusals, admit
from hyvideo_rt.server.costs import CostModel, remaining
from hyvideo_rt.server.protocol import Progress
from hyvideo_rt.server.schedule import choose
from hyvideo_rt.server.settings import Limits
from hyvideo_rt.server.store import QueueLoad
from hyvideo_rt.server.watchdog import Watchdog

TINY = MODELS["tiny"]
PARAMS = request_for().params
MEASURED = {"encode": 0.1, "denoise": 2.0, "decode": 1.0, "write": 0.5}


def test_an_estimate_becomes_what_was_measured() -> None:
    costs = CostModel(TINY, on_cpu=True)
    costs.learn(PARAMS, MEASURED)
    assert costs.stages(PARAMS) == pytest.approx(MEASURED)
    assert costs.total(PARAMS) == pytest.approx(3.6)


def test_twice_the_steps_are_twice_the_denoising_and_cfg_doubles_again() -> None:
    costs = CostModel(TINY, on_cpu=True)
    costs.learn(PARAMS, MEASURED)
    longer = replace(PARAMS, num_inference_steps=2 * PARAMS.num_inference_steps)
    assert costs.stages(longer) == pytest.approx(MEASURED | {"denoise": 4.0})
    assert costs.stages(replace(longer, true_cfg_scale=2.0))["denoise"] == pytest.approx(8.0)


def test_a_size_that_never_ran_costs_by_its_work_until_it_has() -> None:
    costs = CostModel(TINY, on_cpu=True)
    costs.learn(PARAMS, MEASURED)
    wide = replace(PARAMS, bucket=WIDE)
    flops = TINY.dit.flops_per_step(WIDE) / TINY.dit.flops_per_step(SQUARE)
    assert costs.stages(wide)["denoise"] == pytest.approx(2.0 * flops)
    assert costs.stages(wide)["decode"] == pytest.approx(1.5)
    costs.learn(wide, MEASURED | {"denoise": 9.0})
    assert costs.stages(wide)["denoise"] == pytest.approx(9.0)
    assert costs.stages(PARAMS)["denoise"] == pytest.approx(2.0), "its own measurement stays"


def test_news_move_an_estimate_and_one_outlier_does_not_own_it() -> None:
    costs = CostModel(TINY, on_cpu=True)
    costs.learn(PARAMS, MEASURED)
    costs.learn(PARAMS, MEASURED | {"denoise": 12.0})
    assert 2.0 < costs.stages(PARAMS)["denoise"] < 7.0


def test_what_is_left_shrinks_from_stage_to_stage() -> None:
    path = [("load", 0, 1), ("encode", 0, 1), ("denoise", 0, 4), ("denoise", 3, 4), ("decode", 0, 2)]
    left = [remaining(MEASURED, *position) for position in [*path, ("write", 1, 1)]]
    assert left == pytest.approx([3.6, 3.6, 3.5, 2.0, 1.5, 0.0])


def test_the_queue_is_bounded_by_seconds_and_by_count() -> None:
    limits = Limits(queue_jobs=3, queue_s=100)
    admit(QueueLoad(2, 90.0), 10.0, limits)
    with pytest.raises(NoRoom) as by_seconds:
        admit(QueueLoad(2, 90.0), 40.0, limits)
    full = by_seconds.value.behind(running_s=5, devices=1)
    assert full.retry_after_s == 35, "30 s have to leave, behind 5 s that run"
    with pytest.raises(NoRoom) as by_count:
        admit(QueueLoad(3, 30.0), 1.0, limits)
    full = by_count.value.behind(running_s=6, devices=2)
    assert full.retry_after_s == 8, "one of 10 s has to leave, behind 6 s, on two devices"


def test_an_empty_queue_takes_what_is_over_the_bound() -> None:
    admit(QueueLoad(0, 0.0), 1e6, Limits(queue_s=100))


FULL = QueueFull(QueueLoad(3, 9.0), 5)


def test_a_crowd_is_refused_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "REFUSAL_S", 60.0)
    refusals = Refusals()
    assert refusals.of(2.0) is None, "nobody was refused yet"
    refusals.met(FULL, 2.0)
    assert [refusals.of(estimate_s) for estimate_s in (2.0, 3.0, 1.0)] == [FULL, FULL, None], "less may fit"
    refusals.freed()
    assert [refusals.of(2.0) for _ in range(3)] == [None, FULL, FULL], "one asks for each place"
    refusals.accepted()
    assert [refusals.of(2.0) for _ in range(3)] == [None, None, FULL]


def test_a_refusal_speaks_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes an hour later, alone or in a crowd, is not told what was true then."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    refusals = Refusals()
    refusals.met(FULL, 2.0)
    now[0] += 1.1 * admission.REFUSAL_S
    assert [refusals.of(2.0) for _ in range(3)] == [None, FULL, FULL], "one finds out"
    now[0] += admission.REFUSAL_S
    assert [refusals.of(2.0) for _ in range(3)] == [None, None, None]


def test_first_come_first_served() -> None:
    jobs = [job_of(1), job_of(2, WIDE)]
    assert choose([], {SQUARE}, now=10, overtake_s=30) is None
    for loaded in (set(), {SQUARE}, {SQUARE, WIDE}):
        assert choose(jobs, loaded, now=10, overtake_s=30) == jobs[0]


def test_one_whose_engines_are_loaded_may_overtake_but_only_so_long() -> None:
    jobs = [job_of(1, WIDE, created_at=0), job_of(2, WIDE), job_of(3, SQUARE, estimate_s=10)]
    assert choose(jobs, {SQUARE}, now=20, overtake_s=30) == jobs[2]
    assert choose(jobs, {SQUARE}, now=20.1, overtake_s=30) == jobs[0]
    assert choose(jobs, {SQUARE}, now=0, overtake_s=0) == jobs[0]


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.floats(0.1, 20)), min_size=1, max_size=20),
    st.floats(0, 60),
)
def test_nobody_waits_longer_than_the_bound_for_those_who_overtake(
    queue: list[tuple[bool, float, float]], overtake_s: float
) -> None:
    """Run the whole queue: whoever is overtaken was, at the end of the overtaker, within the bound."""
    jobs = [
        job_of(i, WIDE if wide else SQUARE, created_at=created, estimate_s=seconds)
        for i, (wide, created, seconds) in enumerate(sorted(queue, key=lambda item: item[1]))
    ]
    now, loaded = 100.0, {SQUARE}
    while jobs:
        chosen = choose(jobs, loaded, now, overtake_s)
        assert chosen
        now += chosen.estimate_s
        overtaken = jobs[: jobs.index(chosen)]
        assert all(now - job.created_at <= overtake_s + 1e-6 for job in overtaken)
        loaded.add(chosen.bucket)
        jobs.remove(chosen)


def watchdog() -> Watchdog:
    return Watchdog({"denoise": 100.0}, Limits(heartbeat_s=50, watchdog_factor=5), floor_s=20, now=0.0)


def test_a_step_may_take_five_times_its_estimate() -> None:
    dog = watchdog()
    dog.moved(Progress("x", "denoise", 0, 10), now=1.0)  # 10 s a step
    for second in range(2, 52):
        dog.heard(second)
    assert dog.complaint(51.0) is None
    complaint = dog.complaint(51.1)
    assert complaint
    assert "no progress for 50 s" in complaint


def test_a_stage_without_estimate_has_the_floor() -> None:
    dog = watchdog()
    dog.moved(Progress("x", "load", 0, 1), now=0.0)
    assert dog.complaint(20.0) is None
    assert dog.complaint(20.1)


def test_silence_is_not_work() -> None:
    dog = watchdog()
    dog.moved(Progress("x", "denoise", 0, 1), now=0.0)  # 500 s allowed
    dog.heard(100.0)
    assert dog.complaint(150.0) is None
    assert dog.complaint(150.1) == "no sign of life for 50 s"
