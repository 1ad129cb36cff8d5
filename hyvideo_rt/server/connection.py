"""One connection of uvicorn's, mended where clients are slow, and where what they say stops making sense."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 20.0  # from a request's first byte, of the first request from connecting, to the end of its headers


class Connection(H11Protocol):
    """uvicorn waits for ever for headers once a byte of them has come; here it is HEAD_S.

    What is sent after the head may be nonsense, a chunk without a size for example. uvicorn answers 400 then
    and closes. The application has begun on the request, and its answer would be a second one: an error in
    the log that every client could write there. To the application, the client has hung up.
    """

    _giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_head()
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """The next request may take its time to begin: uvicorn ends an idle connection itself."""
        super().on_response_complete()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        begun = self.cycle if self.cycle and not self.cycle.response_complete else None
        if begun:
            begun.disconnected = True
            begun.message_event.set()
        if begun and begun.response_started:
            self.transport.close()  # half an answer cannot become another
        else:
            super().send_400_response(msg)

    def _wait_for_head(self) -> None:
        if self._giving_up is None:
            self._giving_up = self.loop.call_later(HEAD_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._giving_up:
            self._giving_up.cancel()
            self._giving_up = None
