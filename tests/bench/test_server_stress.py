"""Every part of the stress, small, against the real server."""

from pathlib import Path

import httpx
import pytest

from hyvideo_rt.bench.server_process import running_server
from hyvideo_rt.bench.stress_cancels import cancels
from hyvideo_rt.bench.stress_kills import kills
from hyvideo_rt.bench.stress_malformed import malformed
from hyvideo_rt.bench.stress_soak import LEAKING, judge, sample, soaked

pytestmark = pytest.mark.timeout(
    900
)  # servers are started a dozen times, perhaps on a machine with other work


def test_kills() -> None:
    result = kills(4, seed=0)
    assert result["violations"] == {}
    assert result["kills"]["in_all"] == 4
    assert result["jobs"] >= result["videos_checked"] > 0


def test_cancels() -> None:
    result = cancels(15, seed=0)
    assert result["violations"] == {}
    assert result["cancels"] >= 15
    assert result["videos_checked"] >= result["left_alone"] > 0


def test_malformed_requests() -> None:
    result = malformed(300, seed=0)
    assert result["violations"] == {}
    assert result["requests"] == 300
    assert result["answers"][400] > 100


def test_a_short_soak() -> None:
    """Too short for a word on memory."""
    found = soaked(0.1, seed=0)
    assert {what: which for what, which in found.troubles.items() if which} == {}
    assert found.visits
    assert set(found.to_json()["growth"]) == {"server", "worker"}


def test_a_server_that_leaks_is_found_to_grow(tmp_path: Path) -> None:
    """Fifty requests between two samples."""
    with (
        running_server(tmp_path / "data", program=("-c", LEAKING)) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        samples = []
        for i in range(30):
            for _ in range(50):
                assert client.get("/live").status_code == 200
            samples.append(sample(server.pid, float(i)))
    assert judge(samples).grows
