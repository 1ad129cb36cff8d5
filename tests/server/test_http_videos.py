"""One video over HTTP: its end, its events, its file and its pictures."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from http_client import Client, assert_error, client, create, events_of, finished, folder, shared
from stubs import wait_for

from hyvideo_rt.server import routes_videos
from hyvideo_rt.server.events import MOVES_S


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


def test_events_tell_the_queue_each_step_and_the_end(client: Client) -> None:
    first = create(client, prompt="steps 20 0.02")
    second = create(client, prompt=f"steps 5 {3 * MOVES_S}")  # slower than events come, on a busy machine too
    seen = events_of(client.get(f"/v1/videos/{second['id']}/events").text)
    assert [seen[0]["status"], seen[-1]["status"]] == ["queued", "completed"]
    steps = [event["stage"]["done"] for event in seen if event["stage"]]
    assert steps == sorted(steps)
    assert {1, 2, 3, 4} <= set(steps), "the fifth is the end"
    left = [event["seconds_left"] for event in seen if event["stage"]]
    assert left == sorted(left, reverse=True)
    assert client.get(f"/v1/videos/{first['id']}").json()["status"] == "completed"


def test_progress_comes_four_times_a_second_at_most(client: Client) -> None:
    """A step takes a hundredth of one."""
    video, start = create(client, prompt="steps 100 0.01"), time.monotonic()
    seen = events_of(client.get(f"/v1/videos/{video['id']}/events").text)
    took_s = time.monotonic() - start
    moves = [event for event in seen if event["stage"]]
    assert 2 <= len(moves) <= took_s / MOVES_S + 3
    assert seen[-1]["status"] == "completed"


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
