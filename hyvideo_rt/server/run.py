"""The server process: HTTP until SIGTERM, then drain; a second signal ends it at once."""

import asyncio
import logging
import os
import socket
import threading
from types import FrameType

import uvicorn

from hyvideo_rt.server.app import make_app
from hyvideo_rt.server.connection import Connection
from hyvideo_rt.server.logs import log_as_json
from hyvideo_rt.server.page_process import PageProcess
from hyvideo_rt.server.service import Service, alone_on
from hyvideo_rt.server.settings import Settings

TICK_S = 0.5  # between two looks whether to end
CLOSING_S = 5  # for connections that are still open when all jobs have ended
ENDED_NOW = CANNOT_SERVE = 1  # exit statuses: after a second signal, and if the model cannot be loaded
log = logging.getLogger(__name__)


def serve(settings: Settings) -> int:
    """Returns the exit status once everything has ended. Raises HyVideoError before anything has begun."""
    log_as_json()
    with alone_on(settings):
        service = Service(settings)
        page = PageProcess(settings.page) if settings.page else None
        config = uvicorn.Config(
            make_app(service, page),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,  # paths hold ids; ours names routes
            server_header=False,
            timeout_keep_alive=75,  # longer than balancers keep an idle connection, or they meet a closed one
            timeout_graceful_shutdown=CLOSING_S,
            http=Connection,
            ws="none",
        )
        try:
            _DrainingServer(config, service, page).run()
        finally:
            service.close()
            if page:
                page.leave()
        return CANNOT_SERVE if service.hopeless.is_set() else 0


class _DrainingServer(uvicorn.Server):
    """Answers go on while jobs finish: clients can poll, follow and download until the last one has."""

    def __init__(self, config: uvicorn.Config, service: Service, page: PageProcess | None) -> None:
        super().__init__(config)
        self._service, self._page, self._signals = service, page, 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """The page is started when it is known where the API is."""
        await super().startup(sockets)
        if self._page and self.started:
            self._page.start(_address(self.servers[0].sockets[0]))

    async def main_loop(self) -> None:
        """uvicorn looks ten times a second, which takes 0.24 ms each (AMD EPYC) of what makes a CPU's video.

        Each look is one that sets the header `date`, too: uvicorn's counter is left at 0.
        """
        while not await self.on_tick(0):
            await asyncio.sleep(TICK_S)

    async def on_tick(self, counter: int) -> bool:
        if self._service.hopeless.is_set() and not self.should_exit:
            log.error("the model cannot be loaded with these flags; the lines above say why")
            self.should_exit = True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals == 1:
            threading.Thread(target=self._drain, daemon=True).start()
        elif self._signals == 2:
            threading.Thread(target=self._end_now, daemon=True).start()

    def _drain(self) -> None:
        self._service.drain()
        if self._page:
            self._page.leave()  # browsers that keep a stream open would be waited for
        self.should_exit = True

    def _end_now(self) -> None:
        log.warning("a second signal: ending now")
        try:
            self._service.leave()
            if self._page:
                self._page.leave()
        finally:
            os._exit(ENDED_NOW)


def _address(listening: socket.socket) -> str:
    """Where this machine reaches the server; one that listens everywhere is reached by loopback."""
    host, port = listening.getsockname()[:2]
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"
