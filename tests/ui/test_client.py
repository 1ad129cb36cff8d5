"""The client on answers that a server, or something before it, may give; on a real one in test_page.py."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pages import video_json

from hyvideo_rt.ui.client import Client, Refused


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    client = Client("http://nowhere")
    client._http = httpx.Client(base_url="http://nowhere", transport=httpx.MockTransport(answer))
    return client


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            httpx.Response(
                429, json={"error": {"message": "m", "code": "queue_full"}}, headers={"Retry-After": "9"}
            ),
            (429, "queue_full", "m", 9),
        ),
        (httpx.Response(502, text="<html>Bad Gateway"), (502, "http_502", "Bad Gateway", None)),
        (httpx.Response(500, json=[1]), (500, "http_500", "Internal Server Error", None)),
        (httpx.Response(503, json={"error": "text"}), (503, "http_503", "Service Unavailable", None)),
        (
            httpx.Response(503, json={"error": {}}, headers={"Retry-After": "Mon, 23 Nov 2026 06:00:00 GMT"}),
            (503, "http_503", "Service Unavailable", None),
        ),
        (httpx.Response(302, headers={"Location": "http://else"}), (302, "http_302", "Found", None)),
        (httpx.Response(200, text="not JSON"), (0, "unreachable", "JSONDecodeError", None)),
    ],
)
def test_any_answer_that_is_no_success(answer: httpx.Response, expected: tuple[Any, ...]) -> None:
    with pytest.raises(Refused) as refused:
        answering(lambda _: answer).model()
    error = refused.value
    assert (error.status, error.code, error.message, error.retry_after_s) == expected


def test_no_answer() -> None:
    with pytest.raises(Refused) as refused:
        Client("http://127.0.0.1:9").model()
    assert (refused.value.status, refused.value.code) == (0, "unreachable")


def test_pages_of_the_list_until_there_are_enough() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        start = int(request.url.params.get("after", "0"))
        asked.append(start)
        data = [video_json(str(i), "completed" if i % 2 else "failed") for i in range(start + 1, start + 51)]
        return httpx.Response(200, json={"data": data, "last_id": str(start + 50), "has_more": start < 150})

    assert len(answering(answer).latest(25)) == 50
    assert len(answering(answer).latest(60)) == 150
    assert len(answering(answer).latest(999)) == 200
    assert asked == [0, 0, 50, 100, 0, 50, 100, 150]
