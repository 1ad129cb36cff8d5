"""The memory promise of loading, on a checkpoint small enough for every test run."""

import sys

import pytest

from hyvideo_rt.bench.weights import CASES, LIMIT, config_of_size, measure


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_loading_needs_little_more_than_the_checkpoint() -> None:
    rows = measure(0.5)
    assert [(row.layout, row.precision) for row in rows] == list(CASES)
    for row in rows:
        assert 0.4 * 2**30 < row.checkpoint_bytes < 0.6 * 2**30
        assert row.ratio <= LIMIT, row
        assert row.ratio > (0.4 if row.precision == "fp8" else 0.95), f"{row}: the weights are not in memory"


def test_size_grows_with_the_request() -> None:
    assert config_of_size(2).num_double_blocks == 15
    assert config_of_size(0.01).num_double_blocks == 1
