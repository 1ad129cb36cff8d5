"""The process of the web page: started with the server, started again when it dies, ended with it.

It listens on a Unix socket in a folder that only this user may enter, so nobody reaches it past the server.
"""

import json
import logging
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

MAX_BACKOFF_S, FAST_DEATH_S, GIVE_UP_DEATHS = 30.0, 60.0, 10
log = logging.getLogger(__name__)


class PageProcess:
    """`key` is what the page asks the API with. It is handed over through standard input.

    After ten deaths in a row, each within a minute of its start, it is left dead: an operator has to look.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.key = secrets.token_urlsafe(32)
        self._command = tuple(command)
        self._folder = tempfile.TemporaryDirectory(prefix="hyvideo-page-")  # mode 0700
        self.socket = str(Path(self._folder.name) / "socket")
        self._leaving = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, server: str) -> None:
        """server: where this server's own API is, as http://host:port."""
        self._thread = threading.Thread(target=self._keep_alive, args=(server,), name="page", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Now. Twice does no harm."""
        self._leaving.set()
        if self._process:
            self._process.kill()
        if self._thread:
            self._thread.join(timeout=5)
        self._folder.cleanup()

    def _keep_alive(self, server: str) -> None:
        deaths = 0
        while not self._leaving.is_set() and deaths < GIVE_UP_DEATHS:
            born = time.monotonic()
            status = self._live(server)
            if self._leaving.is_set():
                return
            deaths = deaths + 1 if time.monotonic() - born < FAST_DEATH_S else 1
            log.warning("the page's process ended", extra={"status": status, "deaths": deaths})
            self._leaving.wait(min(MAX_BACKOFF_S, 0.25 * 2**deaths))
        if not self._leaving.is_set():
            log.error("the page's process keeps ending; it is not started again")

    def _live(self, server: str) -> int:
        Path(self.socket).unlink(missing_ok=True)
        told = {"server": server, "key": self.key, "socket": self.socket}
        with subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the server, which drains first
        ) as process:
            self._process = process
            assert process.stdin
            try:
                process.stdin.write(json.dumps(told) + "\n")
                process.stdin.flush()  # it stays open: its end, with ours, ends the page
            except BrokenPipeError:
                pass
            if self._leaving.is_set():  # it was told to while this one began
                process.kill()
            return process.wait()
