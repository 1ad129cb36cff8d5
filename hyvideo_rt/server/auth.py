"""Nobody in without the key: every path is closed but those that say whether the server lives."""

import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from hyvideo_rt.server.faults import error_response

PUBLIC = frozenset({"/live", "/ready", "/health"})


class RequireKey:
    """`Authorization: Bearer KEY`, one of several; without any key configured everyone is let in."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app, self._keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._allows(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            answer = error_response(
                401,
                "got no valid API key; expected the header `Authorization: Bearer KEY`",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _allows(self, scope: Scope) -> bool:
        if not self._keys or scope["path"] in PUBLIC:
            return True
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        candidate = given.strip().encode()
        matches = [hmac.compare_digest(candidate, key) for key in self._keys]  # all: time tells nothing
        return scheme.lower() == "bearer" and any(matches)
