"""Around every HTTP request: an id, a limit on the body, a line in the log and two metrics."""

import asyncio
import logging
import secrets
import time
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyvideo_rt.server.faults import ApiError, error_response
from hyvideo_rt.server.metrics import Metrics

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
CLOSE = {"Connection": "close"}
PROBED = frozenset({"/live", "/ready", "/health", "/metrics"})  # every few seconds, for ever
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
log = logging.getLogger(__name__)


class Observe:
    """Paths hold ids, so log and metrics name the route that matched, or none."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, start, status = f"req_{secrets.token_hex(8)}", time.perf_counter(), 500
        REQUEST_ID.set(request_id)

        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("a request failed")
            if started:
                raise  # the connection is cut: half an answer must not look whole
            answer = error_response(500, "the server failed; its log has more", "internal_error")
            await answer(scope, receive, send_with_id)
        finally:
            self._report(scope, status, time.perf_counter() - start)

    def _report(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.http.labels(method, route, str(status)).inc()
        self._metrics.http_seconds.labels(route).observe(seconds)
        extra = {"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 1)}
        log.log(logging.DEBUG if route in PROBED else logging.INFO, "request", extra=extra)


class LimitBody:
    """At most `limit` bytes, announced or not, within `seconds`. What is too long is not read to its end."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self._app, self._limit, self._seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdigit() or int(announced[:20]) > self._limit:
            await self._too_long().response()(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._seconds
        read, complete, started = 0, False, False

        async def counted() -> Message:
            nonlocal read, complete
            if complete:  # all that can come is that the client leaves
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            read += len(message.get("body", b""))
            if read > self._limit:
                raise self._too_long()
            complete = not message.get("more_body", False)
            return message

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, counted, noting)
        except ApiError as refused:
            if not started:
                await refused.response()(scope, receive, send)

    def _too_long(self) -> ApiError:
        message = f"the body is longer than {self._limit} bytes"
        return ApiError(413, message, "body_too_large", headers=dict(CLOSE))

    def _too_slow(self) -> ApiError:
        message = f"the body was not there after {self._seconds:.0f} s"
        return ApiError(408, message, "body_too_slow", headers=dict(CLOSE))
