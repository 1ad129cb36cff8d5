"""Asking for videos over HTTP: keys, bodies, errors, pages, and a full queue."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from http_client import Client, assert_error, client, create, finished, folder, shared
from stubs import KEY, ended, wait_for

from hyvideo_rt.server import admission
from hyvideo_rt.server.auth import PUBLIC


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
    wait_for(lambda: client.service.desk._idle)
    video = create(client, seed=7)
    assert (video["status"], video["seed"], video["progress"]) == ("in_progress", 7, 0)
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
    monkeypatch.setattr(admission, "REFUSAL_S", 60.0)
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
