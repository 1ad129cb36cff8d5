"""`python serve.py --model tiny` as its users meet it: a process, the OpenAI client, and signals."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from stubs import AUTH, KEY, wait_for

from hyvideo_rt.bench.server_process import free_port

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API")  # OpenAI's own server; the format lives on


class Server:
    """The process, on a port of its own, with its log read line by line."""

    def __init__(self, data_dir: Path, *flags: str, key: str | None = KEY) -> None:
        self.port = free_port()
        command = [
            sys.executable,
            "serve.py",
            "--model",
            "tiny",
            "--device",
            "cpu",
            "--data-dir",
            str(data_dir),
        ]
        command += ["--port", str(self.port), "--min-free-gib", "0", *flags]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"HYVIDEO_API_KEY": key} if key else {})
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        self.log: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, headers=AUTH, timeout=TIMEOUT_S)
        self.openai = openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0)

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(json.loads(line))

    def wait_ready(self) -> "Server":
        def ready() -> bool:
            assert self.process.poll() is None, self.log
            try:
                return self.http.get("/ready").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, TIMEOUT_S)
        return self

    def create(self, **fields: Any) -> str:
        answer = self.http.post("/v1/videos", json={"prompt": "a red circle moves right", **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def get(self, video_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.http.get(f"/v1/videos/{video_id}").json()
        return body

    def wait_step(self, video_id: str, step: int = 2) -> None:
        def there() -> bool:
            stage = self.get(video_id)["stage"]
            return bool(stage) and stage["name"] == "denoise" and stage["done"] >= step

        wait_for(there, TIMEOUT_S)

    def wait_end(self, video_id: str) -> dict[str, Any]:
        wait_for(lambda: self.get(video_id)["status"] in ("completed", "failed"), TIMEOUT_S)
        return self.get(video_id)

    def worker_pid(self) -> int:
        return int([line["worker"] for line in self.log if line["message"] == "worker is warm"][-1])

    def kill(self) -> None:
        self.http.close()
        self.openai.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("serve") / "data")
    yield server.wait_ready()
    server.kill()


def frames_of(content: bytes) -> list[np.ndarray[Any, Any]]:
    with av.open(io.BytesIO(content), "r") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_openai_client_makes_a_video(server: Server) -> None:
    client = server.openai
    video = client.videos.create_and_poll(
        prompt="a red circle moves right",
        extra_body={"seed": 42, "steps": 5},
        poll_interval_ms=100,
    )
    assert video.status == "completed", video.error
    assert (video.progress, video.seconds, video.size) == (100, "0.7083", "64x64")
    content = client.videos.download_content(video.id).read()
    frames = frames_of(content)
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 17
    assert np.ptp(np.stack(frames)) > 50, "a picture"
    assert next(iter(client.videos.list(limit=1))).id == video.id
    assert client.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError) as missing:
        client.videos.retrieve(video.id)
    assert missing.value.code == "video_not_found"


def test_the_openai_client_reads_our_errors(server: Server) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        server.openai.videos.create(prompt="x", size="1x1")  # type: ignore[arg-type]
    assert (bad.value.param, bad.value.code) == ("size", "invalid_value")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0).videos.list()


def test_the_same_seed_is_the_same_video(server: Server) -> None:
    ended = [server.wait_end(server.create(seed=3, steps=3)) for _ in range(2)]
    assert ended[0]["sha256"] == ended[1]["sha256"]
    assert server.wait_end(server.create(seed=4, steps=3))["sha256"] != ended[0]["sha256"]


def test_pictures_of_a_video(server: Server) -> None:
    video_id = server.wait_end(server.create(seed=1, steps=5))["id"]
    frames = frames_of(server.http.get(f"/v1/videos/{video_id}/content").content)
    for variant, kind, size in (("thumbnail", "WEBP", (64, 64)), ("spritesheet", "JPEG", (256, 256))):
        answer = server.http.get(f"/v1/videos/{video_id}/content", params={"variant": variant})
        picture = Image.open(io.BytesIO(answer.content))
        assert (picture.format, picture.size) == (kind, size)
        first = np.asarray(picture.convert("RGB"), dtype=float)[:64, :64]
        assert np.abs(first - frames[0]).mean() < 12, "the first frame"
    last = np.asarray(picture, dtype=float)[192:, 192:]
    assert np.abs(last - frames[-1]).mean() < 12, "the last picture of the sheet is the last frame"


def test_sync_answers_with_the_video(server: Server) -> None:
    answer = server.http.post("/v1/videos/sync", json={"prompt": "a blue square", "steps": 3})
    assert answer.headers["content-type"] == "video/mp4"
    assert len(frames_of(answer.content)) == 17


def test_who_hangs_up_on_sync_frees_the_device(server: Server) -> None:
    with pytest.raises(httpx.ReadTimeout):
        server.http.post("/v1/videos/sync", json={"prompt": "a cat", "steps": 1000}, timeout=1)
    newest = server.http.get("/v1/videos?limit=1").json()["data"][0]
    assert server.wait_end(newest["id"])["error"]["code"] == "cancelled"


def test_cancel_stops_the_device(server: Server) -> None:
    """1000 steps take ten seconds or more; the next video is there long before, from the same process."""
    pid, running, waiting = server.worker_pid(), server.create(steps=1000), server.create(steps=2)
    seen = []
    with server.http.stream("GET", f"/v1/videos/{running}/events") as stream:
        for line in stream.iter_lines():
            if not line.startswith("data: "):
                continue
            seen.append(json.loads(line.removeprefix("data: ")))
            stage = seen[-1]["stage"]
            if stage and stage["name"] == "denoise" and stage["done"] >= 5:
                break
    assert seen[0]["status"] in ("queued", "in_progress")
    assert server.http.post(f"/v1/videos/{running}/cancel").json()["error"]["code"] == "cancelled"
    assert server.wait_end(waiting)["status"] == "completed"
    assert seen[-1]["stage"]["done"] < 100
    text = server.http.get("/metrics").text
    assert metric(text, "hv_cancel_latency_seconds_count") >= 1
    assert metric(text, "hv_cancel_latency_seconds_sum") < 2 * metric(text, "hv_cancel_latency_seconds_count")
    assert server.worker_pid() == pid


def metric(text: str, name: str) -> float:
    return float(next(line for line in text.splitlines() if line.startswith(name + " ")).split()[1])


def test_deleting_a_running_video_frees_the_device(server: Server) -> None:
    running, waiting = server.create(steps=1000), server.create(steps=2)
    server.wait_step(running)
    assert server.http.delete(f"/v1/videos/{running}").json()["deleted"] is True
    assert server.http.get(f"/v1/videos/{running}").status_code == 404
    assert server.wait_end(waiting)["status"] == "completed"


def test_a_size_that_was_not_warm_is_swapped_in(server: Server) -> None:
    video = server.wait_end(server.create(preset="tiny-landscape", steps=2))
    assert video["status"] == "completed", video
    content = server.http.get(f"/v1/videos/{video['id']}/content").content
    assert frames_of(content)[0].shape == (64, 96, 3)
    assert 'hv_engine_loads_total{preset="tiny-landscape"} 1.0' in server.http.get("/metrics").text


def test_a_chunked_body_without_end_is_cut_off(server: Server) -> None:
    head = f"POST /v1/videos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.encode())
        try:
            while sent < 64 << 20:
                connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
                sent += 65536
        except OSError:
            pass
        connection.settimeout(5)
        try:
            answer = connection.recv(65536)
        except OSError:
            answer = b""
    assert sent < 32 << 20, "the server stopped reading"
    assert answer == b"" or b"413" in answer.split(b"\r\n")[0]
    assert server.http.get("/ready").status_code == 200


BODY_TO_COME = f"Host: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("sent", "answer", "status"),
    [
        (f"POST /v1/videos HTTP/1.1\r\n{BODY_TO_COME}Content-Length: 50\r\n\r\n{{", b"", 499),
        (f"POST /v1/videos HTTP/1.1\r\n{BODY_TO_COME}Transfer-Encoding: chunked\r\n\r\nx\r\n", b"400", 499),
        (f"PUT /v1/videos HTTP/1.1\r\n{BODY_TO_COME}Transfer-Encoding: chunked\r\n\r\nx\r\n", b"400", 405),
    ],
    ids=["hangs up", "bad chunk", "bad chunk that nobody reads"],
)
def test_a_body_that_breaks_off_is_no_error_of_ours(
    server: Server, sent: str, answer: bytes, status: int
) -> None:
    before = len(server.log)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sent.encode())
        if answer:
            assert connection.recv(65536).split()[1] == answer
    wait_for(lambda: any(line.get("status") == status for line in server.log[before:]))
    assert [line for line in server.log[before:] if line["level"] == "error"] == []
    assert 'status="500"' not in server.http.get("/metrics").text


def test_a_worker_killed_in_the_middle_costs_one_attempt(server: Server) -> None:
    video_id = server.create(steps=60)
    server.wait_step(video_id)
    os.kill(server.worker_pid(), signal.SIGKILL)
    video = server.wait_end(video_id)
    assert (video["status"], video["attempts"]) == ("completed", 2)
    assert server.http.get("/ready").status_code == 200
    assert "hv_worker_restarts_total" in server.http.get("/metrics").text


def test_prompts_are_not_in_the_log(server: Server) -> None:
    server.wait_end(server.create(prompt="a very secret prompt", steps=2))
    assert any(line["message"] == "ended" for line in server.log)
    assert "secret" not in json.dumps(server.log)
    assert KEY not in json.dumps(server.log)


def test_a_killed_server_goes_on_where_it_was_and_a_stopped_one_drains(tmp_path: Path) -> None:
    first = Server(tmp_path / "data").wait_ready()
    running, waiting = first.create(steps=100, seed=5), first.create(steps=3)
    first.wait_step(running)
    worker = first.worker_pid()
    first.kill()
    wait_for(lambda: _gone(worker), 10)

    second = Server(tmp_path / "data").wait_ready()
    try:
        for video_id, attempts in ((running, 2), (waiting, 1)):
            video = second.wait_end(video_id)
            assert (video["status"], video["attempts"]) == ("completed", attempts)
            content = second.http.get(f"/v1/videos/{video_id}/content").content
            assert len(frames_of(content)) == 17
        endings = [line["job"] for line in second.log if line["message"] == "ended"]
        assert sorted(endings) == sorted([running, waiting]), "each exactly once"
        files = [path.name for path in (tmp_path / "data" / "videos").rglob("*.mp4")]
        assert sorted(files) == sorted([f"{running}.mp4", f"{waiting}.mp4"])

        refused = _start_and_fail("--data-dir", str(tmp_path / "data"))
        assert "another server runs" in refused

        last, next_one = second.create(steps=60), second.create(steps=60)
        second.wait_step(last)
        second.process.send_signal(signal.SIGTERM)
        wait_for(lambda: second.http.get("/ready").status_code == 503, 10)
        assert second.http.post("/v1/videos", json={"prompt": "x"}).json()["error"]["code"] == "draining"
        assert second.process.wait(TIMEOUT_S) == 0
        states = {line["job"]: line["state"] for line in second.log if line["message"] == "ended"}
        assert states[last] == "completed"
        assert next_one not in states
    finally:
        second.kill()


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def _start_and_fail(*flags: str) -> str:
    command = [sys.executable, "serve.py", "--model", "tiny", "--device", "cpu", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode in (1, 2)
    return ended.stderr


def test_a_server_that_can_never_make_a_video_ends(tmp_path: Path) -> None:
    """An engine of a backend that was named is missing: no restart will bring it."""
    said = _start_and_fail(
        "--backend", "openvino", "--data-dir", str(tmp_path), "--engine-dir", str(tmp_path)
    )
    assert "build it: hyvideo-rt build --component double_block" in said
    assert "the model cannot be loaded with these flags" in said


def test_a_data_folder_that_cannot_be_made_ends_it() -> None:
    words = _start_and_fail("--data-dir", "/proc/hyvideo-data")
    assert "HyVideoError: got 'No such file or directory' for the data folder /proc/hyvideo-data" in words
    assert "--data-dir" in words
    assert "Traceback" not in words


def test_an_open_address_without_a_key_is_refused(tmp_path: Path) -> None:
    assert "without an API key" in _start_and_fail("--host", "0.0.0.0", "--data-dir", str(tmp_path))
