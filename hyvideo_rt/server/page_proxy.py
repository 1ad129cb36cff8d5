"""`/`, `/ui/...` and the icon: answered by the page's process, through its Unix socket and nothing else."""

from collections.abc import AsyncIterator, Iterable
from html import escape
from types import SimpleNamespace

import httpx
from fastapi import Request
from starlette.background import BackgroundTask
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from hyvideo_rt.server.auth import is_page
from hyvideo_rt.server.faults import error_response

# Of one connection, not of the message (RFC 9110, 7.6.1); lengths are set anew. The key stays here.
HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
NOT_FORWARDED = HOP_BY_HOP | {"authorization", "expect"}
METHODS = ["GET", "HEAD", "POST"]
RETRY_S = 2
NAMED = SimpleNamespace(path="/ui")
TIMEOUT = httpx.Timeout(None, connect=3)  # streams of events are silent for long


class PageProxy:
    """Bodies pass in pieces as they come, in both directions; events are not held back."""

    def __init__(self, socket: str) -> None:
        transport = httpx.AsyncHTTPTransport(uds=socket, limits=httpx.Limits(max_connections=None))
        self._http = httpx.AsyncClient(transport=transport)

    def routes(self) -> list[Route]:
        paths = ("/", "/favicon.ico", "/ui", "/ui/{rest:path}")
        return [Route(path, self._answer, methods=METHODS, include_in_schema=False) for path in paths]

    async def _answer(self, request: Request) -> Response:
        assert is_page(request.url.path)
        request.scope["route"] = NAMED  # for log and metrics
        try:
            answer = await self._http.send(_passed_on(request), stream=True, follow_redirects=False)
        except httpx.ConnectError:
            return _not_there(
                request, 503, "the page is being started; try again in a moment", "page_not_ready"
            )
        except httpx.TransportError:
            return _not_there(request, 502, "the page's process ended while it answered", "page_failed")
        response = StreamingResponse(
            _pieces(answer), answer.status_code, background=BackgroundTask(answer.aclose)
        )
        response.raw_headers = _kept(answer.headers.raw, HOP_BY_HOP | {"date"})
        return response


def _passed_on(request: Request) -> httpx.Request:
    """The path as it was sent. Host is the client's word: the page builds links with it, nobody connects."""
    query = request.scope["query_string"]
    target = request.scope["raw_path"] + (b"?" + query if query else b"")
    headers = _kept(request.headers.raw, NOT_FORWARDED)
    return httpx.Request(
        request.method,
        "http://page/",
        headers=headers,
        content=None if request.method in ("GET", "HEAD") else request.stream(),
        extensions={"target": target, "timeout": TIMEOUT.as_dict()},
    )


def _kept(headers: Iterable[tuple[bytes, bytes]], dropped: set[str]) -> list[tuple[bytes, bytes]]:
    pairs = [(name.lower(), value) for name, value in headers]
    named = {
        part.strip().lower()
        for name, value in pairs
        if name == b"connection"
        for part in value.decode("latin-1").split(",")
    }
    return [(name, value) for name, value in pairs if name.decode("latin-1") not in dropped | named]


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    """As they come, compressed or not. A stream of events may end at any time; anything else that is cut off
    must not look whole.
    """
    try:
        async for piece in answer.aiter_raw():
            yield piece
    except httpx.TransportError:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise


def _not_there(request: Request, status: int, message: str, code: str) -> Response:
    """A person's browser tries again by itself; a program gets our error."""
    headers = {"Retry-After": str(RETRY_S)}
    if "text/html" not in request.headers.get("accept", ""):
        return error_response(status, message, code, headers=headers)
    page = (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="{RETRY_S}">'
        f"<title>hyvideo-rt</title><p>{escape(message)}</p><p>页面正在启动，请稍候。</p>"
    )
    return HTMLResponse(page, status, headers)
