"""Memory that the system does not tell is not known; it is never a number of something else."""

import pytest
import torch

from hyvideo_rt.bench import memory
from hyvideo_rt.bench.memory import Memory, Watch

CPU, SIZE = torch.device("cpu"), 100_000_000


def test_a_peak_is_forgotten_and_what_is_kept_is_not() -> None:
    watch = Watch(CPU)
    held = b"x" * SIZE
    passing = b"y" * SIZE
    del passing
    before = watch.memory()
    watch.forget_peaks()
    after = watch.memory()
    assert before.host_peak_bytes is not None
    assert after.host_peak_bytes is not None
    assert after.host_steady_bytes is not None
    assert 1.95 * SIZE < before.host_peak_bytes < 2.5 * SIZE
    assert 0.95 * SIZE < after.host_peak_bytes < 1.5 * SIZE
    assert 0.95 * SIZE < after.host_steady_bytes <= after.host_peak_bytes
    assert len(held) == SIZE


def test_one_peak_for_the_whole_life_of_a_process_is_none_of_a_contestant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused() -> None:
        raise PermissionError("/proc/self/clear_refs")

    monkeypatch.setattr(memory, "forget_host_peak", refused)
    found = Watch(CPU).memory()
    assert found.host_peak_bytes is None
    assert found.host_steady_bytes is not None


def test_a_system_that_tells_nothing_stops_no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(field: str) -> int:
        raise LookupError(field)

    monkeypatch.setattr(memory, "_resident", unknown)
    assert Watch(CPU).memory() == Memory(None, None, None, None)
