"""Before every request for the page: the key, where it comes from, and what the browser may do with it."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyvideo_rt.keys import accepts

# Gradio compiles templates in the browser and writes styles into the page. All that is loaded is from here.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
# Doors of Gradio's that the page has no use for: files of this machine, uploads, and fetching of addresses.
CLOSED = (
    "file=",
    "file/",
    "proxy=",
    "upload",
    "stream/",
    "process_recording",
    "deep_link",
    "vibe",
    "component_",
)


class Guard:
    """Without a key configured everyone is let in who can reach the address."""

    def __init__(self, app: ASGIApp, keys: Sequence[str] = ()) -> None:
        self._app, self._keys = app, tuple(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if self._keys and not accepts(headers.get("authorization", ""), self._keys, basic=True):
            challenge = {"WWW-Authenticate": 'Basic realm="hyvideo-rt", charset="UTF-8"'}
            return PlainTextResponse("the password is the server's API key\n", 401, challenge)
        if scope["method"] not in ("GET", "HEAD") and not _is_own(headers):
            return PlainTextResponse("this came from another site's page\n", 403)
        if _is_closed(scope["path"]):
            return PlainTextResponse("not found\n", 404)
        return None


def _is_own(headers: Headers) -> bool:
    """Browsers say which page sends; a stranger's may not act with the password that a browser keeps."""
    origin = headers.get("origin")
    hosts = (headers.get("host"), headers.get("x-forwarded-host"))
    return origin is None or urlsplit(origin).netloc in hosts


def _is_closed(path: str) -> bool:
    _, _, inner = path.partition("/gradio_api/")
    return inner.startswith(CLOSED)
