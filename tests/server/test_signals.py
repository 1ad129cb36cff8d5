"""SIGTERM twice: the second one ends the server at once, and nothing is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from stubs import ended, stub_service, wait_for

from hyvideo_rt.bench.server_process import free_port

SERVE = """
import sys
from dataclasses import replace
from pathlib import Path
from stubs import QUICK, stub_settings
from hyvideo_rt.server.run import serve
limits = replace(QUICK, drain_s=60, watchdog_floor_s=60, heartbeat_s=60)
sys.exit(serve(replace(stub_settings(Path(sys.argv[1]), limits=limits), port=int(sys.argv[2]))))
"""


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_ends_it_now(tmp_path: Path, signals: tuple[int, int]) -> None:
    port = free_port()
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    command = [sys.executable, "-c", SERVE, str(tmp_path), str(port)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_for(lambda: _status(client) == 200, 30)
            job_id = client.post("/v1/videos", json={"prompt": "steps 1000 0.05 once"}).json()["id"]
            wait_for(lambda: client.get(f"/v1/videos/{job_id}").json()["stage"])
            process.send_signal(signals[0])
            wait_for(lambda: _status(client) == 503)
            assert client.get(f"/v1/videos/{job_id}").json()["status"] == "in_progress", "it may finish"
            start = time.monotonic()
            process.send_signal(signals[1])
            assert process.wait(20) == 1
            assert time.monotonic() - start < 15, "not the 50 s of the video"
    finally:
        process.kill()
    with stub_service(tmp_path) as service:
        assert ended(service, job_id).attempts == 1, "the attempt that was cut off does not count"


def _status(client: httpx.Client) -> int | None:
    try:
        return client.get("/ready").status_code
    except httpx.TransportError:
        return None
