"""Nobody in without the key: every path is closed but those that say whether the server lives."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from hyvideo_rt.keys import accepts
from hyvideo_rt.server.faults import error_response
from hyvideo_rt.server.settings import is_loopback

PUBLIC = frozenset({"/live", "/ready", "/health"})
PAGE = frozenset({"/", "/favicon.ico", "/ui"})


class RequireKey:
    """`Authorization: Bearer KEY`, one of several.

    The page's paths take the key as the password of HTTP Basic, too, since browsers ask for that. The API
    does not: a browser sends such a password along with what other sites' pages post here.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], *, page: bool = False) -> None:
        self._app, self._keys, self._page = app, tuple(keys), page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._allows(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            basic = self._page and is_page(scope["path"])
            message = "got no valid API key; expected the header `Authorization: Bearer KEY`"
            if basic:
                message += ", or it as the password"
            challenge = 'Basic realm="hyvideo-rt", charset="UTF-8"' if basic else "Bearer"
            answer = error_response(401, message, "invalid_api_key", headers={"WWW-Authenticate": challenge})
            await answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _allows(self, scope: Scope) -> bool:
        if scope["path"] in PUBLIC:
            return True
        given = Headers(scope=scope).get("authorization", "")
        return accepts(given, self._keys, basic=self._page and is_page(scope["path"]))


class OwnMachineOnly:
    """For a server without keys: no page of another site, open in a browser here, gets in.

    Such a page could post forms to 127.0.0.1, or reach it under its own name (DNS rebinding). What is asked
    for must be this machine, and what a page asks must come from the address it asks for.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PUBLIC or self._is_ours(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        answer = error_response(
            403,
            "got a request in the name of another host or site; without an API key only this machine may ask",
            "foreign_origin",
        )
        await answer(scope, receive, send)

    def _is_ours(self, headers: Headers) -> bool:
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return is_loopback(name) and (origin is None or urlsplit(origin).netloc == host)
        except ValueError:
            return False


def is_page(path: str) -> bool:
    """Whether the web page's process answers it, if there is one."""
    return path in PAGE or path.startswith("/ui/")
