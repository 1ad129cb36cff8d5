"""Nobody in without the key: every path is closed but those that say whether the server lives."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from hyvideo_rt.keys import accepts
from hyvideo_rt.server.faults import error_response

PUBLIC = frozenset({"/live", "/ready", "/health"})
PAGE = frozenset({"/", "/favicon.ico", "/ui"})


class RequireKey:
    """`Authorization: Bearer KEY`, one of several; without any key configured everyone is let in.

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
        if not self._keys or scope["path"] in PUBLIC:
            return True
        given = Headers(scope=scope).get("authorization", "")
        return accepts(given, self._keys, basic=self._page and is_page(scope["path"]))


def is_page(path: str) -> bool:
    """Whether the web page's process answers it, if there is one."""
    return path in PAGE or path.startswith("/ui/")
