"""The HTTP application on a stub worker: routes, errors, keys, limits, ranges and events."""

import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from stubs import AUTH, KEY, ended, stub_settings, traces, wait_for, wait_warm

from hyvideo_rt.server import desk, routes_videos
from hyvideo_rt.server.app import make_app
from hyvideo_rt.server.auth import PUBLIC
from hyvideo_rt.server.logs import JsonLines
from hyvideo_rt.server.service import Service
from hyvideo_rt.server.settings import Limits


class Client(TestClient):
    """Carries the key; `service` is what answers."""

    service: Service


LIMITS = Limits(
    queue_jobs=3,
    watchdog_floor_s=5,
    heartbeat_s=5,
    min_free_bytes=0,
    drain_s=5,
    sync_s=5,
    job_s=1000,
    sweep_every_s=3600,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Client]:
    service = Service(stub_settings(folder, keys=("another-key-for-tests", KEY), limits=LIMITS))
    with Client(make_app(service), headers=AUTH) as client:
        client.service = service
        wait_warm(service)
        yield client
    service.close()


@pytest.fixture
def client(shared: Client) -> Client:
    """An empty server."""
    for job in shared.service.store.page(None, 1000, newest_first=True):
        shared.service.desk.delete(job.id)
    wait_for(lambda: shared.service.supervisors[0].job is None)
    return shared


def create(client: Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/videos", json={"prompt": "a cat", **fields})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def finished(client: Client, **fields: Any) -> dict[str, Any]:
    video = create(client, **fields)
    ended(client.service, video["id"])
    body: dict[str, Any] = client.get(f"/v1/videos/{video['id']}").json()
    return body


def assert_error(answer: Any, status: int, code: str, param: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["error"]["code"], body["error"]["param"]) == (code, param)


def test_every_route_but_three_is_closed(client: Client) -> None:
    app: Any = client.app
    paths = {(m, r.path) for r in _routes(app) for m in r.methods or ()}
    assert len(paths) > 14
    assert ("POST", "/v1/videos") in paths
    stranger = TestClient(app)
    unlisted = [("GET", "/nothing"), ("GET", "/openapi.json"), ("PUT", "/v1/videos")]
    for method, path in [*sorted(paths), *unlisted]:
        for headers in ({}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Basic {KEY}"}):
            answer = stranger.request(
                method, path.replace("{video_id}", "video_" + "0" * 32), headers=headers
            )
            if path in PUBLIC:
                assert answer.status_code == 200
            else:
                assert answer.status_code == 401, (method, path)
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                if method != "HEAD":
                    assert_error(answer, 401, "invalid_api_key")
    assert (
        stranger.get("/v1/models", headers={"Authorization": "bearer another-key-for-tests"}).status_code
        == 200
    )


def _routes(app: Any) -> list[APIRoute]:
    found, todo = [], list(app.routes)
    while todo:
        route = todo.pop()
        if isinstance(route, APIRoute):
            found.append(route)
        else:
            inner = getattr(route, "original_router", None) or getattr(route, "app", None)
            todo += getattr(inner, "routes", [])
    return found


def test_a_video_from_create_to_delete(client: Client) -> None:
    video = create(client, seed=7)
    assert (video["status"], video["seed"], video["progress"]) == ("queued", 7, 0)
    video_id = video["id"]
    assert ended(client.service, video_id).output
    body = client.get(f"/v1/videos/{video_id}").json()
    assert (body["status"], body["progress"], body["error"]) == ("completed", 100, None)
    content = client.get(f"/v1/videos/{video_id}/content")
    assert content.headers["content-type"] == "video/mp4"
    assert content.headers["etag"] == f'"{body["sha256"]}"'
    assert len(content.content) == body["size_bytes"]
    deleted = client.delete(f"/v1/videos/{video_id}").json()
    assert deleted == {"id": video_id, "object": "video.deleted", "deleted": True}
    for path in ("", "/content", "/events"):
        assert_error(client.get(f"/v1/videos/{video_id}{path}"), 404, "video_not_found", "id")
    assert_error(client.delete(f"/v1/videos/{video_id}"), 404, "video_not_found", "id")
    assert list(client.service.outputs.owners()) == []


def test_a_form_says_the_same_as_json(client: Client) -> None:
    fields = {"prompt": "a cat", "steps": "3", "seed": "5", "guidance_scale": "4.5", "seconds": "1"}
    multipart = client.post(
        "/v1/videos", files={name: (None, value) for name, value in fields.items()}
    ).json()
    plain = client.post("/v1/videos", data=fields).json()
    same = create(client, steps=3, seed=5, guidance_scale=4.5, seconds="1")
    for body in (multipart, plain):
        for name in ("steps", "seed", "guidance_scale", "num_frames", "prompt"):
            assert body[name] == same[name]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b'"prompt"', "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        (b"{}", "invalid_value", "prompt"),
        (b'{"prompt": 5}', "invalid_value", "prompt"),
        (b'{"prompt": "x", "num_frames": true}', "invalid_value", "num_frames"),
        (b'{"prompt": "x", "steps": "3"}', "invalid_value", "steps"),
        (b'{"prompt": "x", "n": 2}', "unknown_parameter", "n"),
        (b'{"prompt": "x", "seed": NaN}', "invalid_value", "seed"),
        (b'{"prompt": "x", "seed": 1e400}', "invalid_value", "seed"),
        (b'{"prompt": "x", "model": "sora-2"}', "model_not_found", "model"),
        (b'{"prompt": "x", "size": "8192x8192", "num_frames": 129}', "does_not_fit", "size"),
        (b'{"prompt": "x", "input_reference": {"file_id": "1"}}', "unsupported_parameter", "input_reference"),
    ],
)
def test_bad_bodies(client: Client, body: bytes, code: str, param: str | None) -> None:
    answer = client.post("/v1/videos", content=body, headers={"Content-Type": "application/json"})
    assert_error(answer, 400, code, param)
    assert "Traceback" not in answer.text
    assert client.service.store.page(None, 1, newest_first=True) == []


def test_a_video_that_would_take_too_long(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.service.desk.costs, "total", lambda params: 1000.5)
    assert_error(client.post("/v1/videos", json={"prompt": "a cat"}), 400, "too_expensive", "size")


def test_bad_media(client: Client) -> None:
    assert_error(client.post("/v1/videos", content=b"prompt=x"), 415, "unsupported_media_type")
    form = client.post("/v1/videos", files={"input_reference": ("a.png", b"x")}, data={"prompt": "x"})
    assert_error(form, 400, "unsupported_parameter", "input_reference")
    broken = {"Content-Type": "multipart/form-data"}
    assert client.post("/v1/videos", content=b"x", headers=broken).status_code == 400
    twice = client.post("/v1/videos", content=b"prompt=a&prompt=b", headers=FORM)
    assert_error(twice, 400, "invalid_value")


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def test_long_bodies_are_not_read(client: Client) -> None:
    limit = client.service.settings.limits.body_bytes
    json_type = {"Content-Type": "application/json"}
    assert_error(
        client.post("/v1/videos", content=b" " * (limit + 1), headers=json_type), 413, "body_too_large"
    )
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b" " * 65536

    answer = client.post("/v1/videos", content=chunks(), headers=json_type)
    assert answer.status_code in (400, 413)
    assert client.post("/v1/videos", content=b" " * limit, headers=json_type).status_code == 400


def test_errors_of_the_framework_have_our_body(client: Client) -> None:
    assert_error(client.get("/nothing"), 404, "not_found")
    assert_error(client.put("/v1/videos"), 405, "method_not_allowed")
    assert_error(client.get("/v1/videos?limit=0"), 400, "invalid_value", "limit")
    assert_error(client.get("/v1/videos?order=up"), 400, "invalid_value", "order")
    assert_error(client.get("/v1/videos?after=video_x"), 400, "invalid_value", "after")
    assert_error(client.get("/v1/videos/..%2f..%2fetc"), 404, "not_found")
    assert_error(client.get("/v1/videos/video_ABC"), 404, "video_not_found", "id")


def test_pages_by_cursor(client: Client) -> None:
    ids = [finished(client)["id"] for _ in range(5)]
    page = client.get("/v1/videos?limit=2").json()
    assert [v["id"] for v in page["data"]] == ids[:2:-1] == [page["first_id"], page["last_id"]]
    assert page["has_more"] is True
    rest = client.get(f"/v1/videos?limit=3&after={page['last_id']}").json()
    assert [v["id"] for v in rest["data"]] == ids[2::-1]
    assert rest["has_more"] is False
    assert [v["id"] for v in client.get("/v1/videos?order=asc").json()["data"]] == ids
    client.delete(f"/v1/videos/{ids[0]}")
    assert client.get(f"/v1/videos?after={ids[1]}").json()["data"] == []


def test_an_idempotency_key_makes_one_video(client: Client) -> None:
    def post(prompt: str, key: str) -> Any:
        return client.post("/v1/videos", json={"prompt": prompt}, headers={"Idempotency-Key": key})

    first, again = post("a cat", "key-1").json(), post("a cat", "key-1").json()
    assert (first["id"], first["seed"]) == (again["id"], again["seed"])
    assert_error(post("a dog", "key-1"), 409, "idempotency_key_reused")
    assert post("a cat", "key-2").json()["id"] != first["id"]
    assert post("a cat", "x" * 256).status_code == 400


def test_a_full_queue_says_when_to_come_back(client: Client) -> None:
    running = create(client, prompt="steps 1000 0.01")["id"]
    wait_for(lambda: client.service.supervisors[0].job)
    waiting = [create(client)["id"] for _ in range(3)]
    places = [client.get(f"/v1/videos/{video_id}").json()["queue_position"] for video_id in waiting]
    assert places == [0, 1, 2]
    answer = client.post("/v1/videos", json={"prompt": "one more"})
    assert_error(answer, 429, "queue_full")
    assert int(answer.headers["Retry-After"]) >= 1
    client.delete(f"/v1/videos/{waiting[0]}")
    assert create(client)
    assert client.get(f"/v1/videos/{waiting[1]}").json()["queue_position"] == 0
    client.delete(f"/v1/videos/{running}")


def test_a_refusal_is_said_again_without_asking_the_database(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "REFUSAL_S", 60.0)
    running = create(client, prompt="steps 1000 0.01")["id"]
    wait_for(lambda: client.service.supervisors[0].job)
    waiting = [create(client, steps=4)["id"] for _ in range(3)]
    assert_error(client.post("/v1/videos", json={"prompt": "one more", "steps": 4}), 429, "queue_full")
    with client.service.store._db._lock:
        assert_error(client.post("/v1/videos", json={"prompt": "x", "steps": 4}), 429, "queue_full")
    client.delete(f"/v1/videos/{waiting[0]}")
    waiting.append(create(client)["id"])
    for video_id in (*waiting, running):
        client.delete(f"/v1/videos/{video_id}")


def test_cancel_keeps_the_record_and_ends_polling(client: Client) -> None:
    video = create(client, prompt="steps 1000 0.01")
    cancelled = client.post(f"/v1/videos/{video['id']}/cancel").json()
    assert (cancelled["status"], cancelled["error"]["code"]) == ("failed", "cancelled")
    assert_error(client.get(f"/v1/videos/{video['id']}/content"), 409, "video_cancelled")
    done = finished(client)
    assert client.post(f"/v1/videos/{done['id']}/cancel").json()["status"] == "completed", "no effect"


def test_a_failure_says_why(client: Client) -> None:
    video = finished(client, prompt="fail numerical_error")
    assert (video["status"], video["error"]["code"]) == ("failed", "numerical_error")
    assert_error(client.get(f"/v1/videos/{video['id']}/content"), 409, "video_failed")


def events_of(text: str) -> list[dict[str, Any]]:
    blocks = [block for block in text.split("\n\n") if block.startswith("event: video\ndata: ")]
    return [json.loads(block.partition("data: ")[2]) for block in blocks]


def test_events_tell_the_queue_each_step_and_the_end(client: Client) -> None:
    first = create(client, prompt="steps 20 0.02")
    second = create(client, prompt="steps 20 0.02")
    seen = events_of(client.get(f"/v1/videos/{second['id']}/events").text)
    assert [seen[0]["status"], seen[-1]["status"]] == ["queued", "completed"]
    steps = [event["stage"]["done"] for event in seen if event["stage"]]
    assert steps == sorted(steps)
    assert len(set(steps)) >= 10
    left = [event["seconds_left"] for event in seen if event["stage"]]
    assert left == sorted(left, reverse=True)
    assert client.get(f"/v1/videos/{first['id']}").json()["status"] == "completed"


def test_sync_waits_for_the_file(client: Client) -> None:
    answer = client.post("/v1/videos/sync", json={"prompt": "steps 5 0.02", "seed": 3})
    assert answer.status_code == 200
    assert json.loads(answer.content)["seed"] == 3, "the stub's video is its request"
    assert client.get(f"/v1/videos/{answer.headers['X-Video-Id']}").json()["status"] == "completed"
    failed = client.post("/v1/videos/sync", json={"prompt": "fail numerical_error"})
    assert_error(failed, 500, "numerical_error")


def test_a_range_of_the_file(client: Client) -> None:
    video = finished(client)
    url = f"/v1/videos/{video['id']}/content"
    whole = client.get(url).content
    part = client.get(url, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, whole[2:6])
    assert part.headers["Content-Range"] == f"bytes 2-5/{len(whole)}"
    assert client.get(url, headers={"Range": "bytes=-3"}).content == whole[-3:]
    for ignored in ("bytes=1-2,4-5", "bytes=" + "0-," * 10_000, "lines=1-2", "bytes=5-2", "bytes=a-b"):
        answer = client.get(url, headers={"Range": ignored})
        assert (answer.status_code, answer.content) == (200, whole)
    beyond = client.get(url, headers={"Range": f"bytes={len(whole)}-"})
    assert_error(beyond, 416, "range_not_satisfiable", "range")
    assert beyond.headers["Content-Range"] == f"bytes */{len(whole)}"
    assert client.get(url, headers={"If-None-Match": f'"{video["sha256"]}"'}).status_code == 304
    stale = client.get(url, headers={"Range": "bytes=0-0", "If-Range": '"old"'})
    assert (stale.status_code, stale.content) == (200, whole)
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole))


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
    assert any(line.get("job") == video["id"] and line["message"] == "queued" for line in lines)
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


def test_who_waits_is_told_that_the_server_ends(client: Client) -> None:
    with ThreadPoolExecutor() as threads:
        body = {"prompt": "steps 400 0.01", "steps": 400}
        waiting = threads.submit(client.post, "/v1/videos/sync", json=body)
        wait_for(lambda: client.service.supervisors[0].job is not None)
        client.service._ended.set()
        try:
            client.service.desk.board.wake()
            assert_error(waiting.result(timeout=10), 503, "draining")
        finally:
            client.service._ended.clear()


def test_pictures_wait_for_each_other_and_hold_nobody_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than the server has threads."""
    done = finished(client)
    drawn: list[int] = []

    def slow(*args: Any) -> Path:
        drawn.append(len(drawn))
        time.sleep(0.05)
        return client.service.outputs.video(done["id"])

    monkeypatch.setattr(routes_videos, "preview", slow)
    path = f"/v1/videos/{done['id']}/content?variant=thumbnail"
    with ThreadPoolExecutor(60) as threads:
        pictures = [threads.submit(client.get, path) for _ in range(60)]
        wait_for(lambda: len(drawn) > 2)
        assert client.get("/live").status_code == client.get("/ready").status_code == 200
        assert len(drawn) < 60, "they were drawn before anyone asked for anything else"
        assert {picture.result().status_code for picture in pictures} == {200}
