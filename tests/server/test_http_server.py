"""What the server says about itself over HTTP and in its log."""

import json
import logging
from pathlib import Path

import pytest
from http_client import Client, assert_error, client, finished, folder, shared
from stubs import traces

from hyvideo_rt.server.logs import JsonLines


def test_models_say_what_is_built_and_what_is_possible(client: Client) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert model == client.get("/v1/models/tiny").json()
    sizes = {size["preset"]: size for size in model["sizes"]}
    assert set(sizes) == {"tiny-square", "tiny-landscape", "tiny-portrait", "tiny-square-long"}
    assert (sizes["tiny-square"]["built"], sizes["tiny-landscape"]["built"]) == (True, False)
    assert all(size["possible"] for size in sizes.values())
    assert_error(client.get("/v1/models/sora-2"), 404, "model_not_found", "id")


def test_metrics_count_and_hold_no_names(client: Client) -> None:
    before = _metric(client, 'hv_requests_total{preset="tiny-square",status="completed"}')
    video = finished(client, prompt="a very secret prompt")
    text = client.get("/metrics").text
    assert _metric(client, 'hv_requests_total{preset="tiny-square",status="completed"}') == before + 1
    assert "secret" not in text
    assert video["id"] not in text
    assert 'route="/v1/videos/{video_id}"' in text or 'route="/v1/videos"' in text
    for name in ("hv_queue_depth", "hv_queue_gpu_seconds", "hv_worker_up", "hv_build_info"):
        assert f"\n{name}" in text


def _metric(client: Client, name: str) -> float:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return float(lines[0].split()[-1]) if lines else 0.0


def test_logs_are_json_and_hold_no_prompts(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    video = finished(client, prompt="a very secret prompt")
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    assert any(line.get("job") == video["id"] and line["message"] == "accepted" for line in lines)
    assert any(line["message"] == "request" and line["status"] == 200 for line in lines)
    client.get("/ready")
    last = [record for record in caplog.records if record.getMessage() == "request"][-1]
    assert last.levelname == "DEBUG", "a probe, every few seconds"


def test_health_while_all_is_well(client: Client, folder: Path) -> None:
    assert client.get("/live").status_code == client.get("/ready").status_code == 200
    health = client.get("/health").json()
    assert health["workers"] == [{"device": "cpu", "warm": True, "broken": False, "busy": False}]
    assert client.get("/version").json()["identity"] == {"model": "stub"}
    assert len(traces(folder, "start")) == 1, "one worker served all of these tests"


def test_a_server_that_drains_or_has_no_room_says_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    done = finished(client)
    with monkeypatch.context() as patch:
        patch.setattr(client.service, "draining", True)
        assert client.get("/ready").json()["reasons"] == ["draining"]
        assert client.get("/ready").status_code == 503
        refused = client.post("/v1/videos", json={"prompt": "a cat"})
        assert_error(refused, 503, "draining")
        assert refused.headers["Retry-After"]
        assert client.get(f"/v1/videos/{done['id']}").status_code == 200
    monkeypatch.setattr(client.service.outputs, "free_bytes", lambda: -1)
    assert client.get("/ready").json()["reasons"] == ["disk_full"]
    assert_error(client.post("/v1/videos", json={"prompt": "a cat"}), 503, "disk_full")


def test_what_nobody_foresaw_has_our_body_and_an_id(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("/secret/path")

    monkeypatch.setattr(client.service.store, "get", broken)
    answer = client.get(f"/v1/videos/video_{0:032x}")
    assert_error(answer, 500, "internal_error")
    assert answer.headers["X-Request-Id"].startswith("req_")
    assert "secret" not in answer.text
