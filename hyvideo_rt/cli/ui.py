"""`hyvideo-rt ui`: the web page of a server that runs elsewhere. `serve --ui` brings its own."""

import argparse
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from hyvideo_rt.cli.keys import api_keys
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.server.settings import is_loopback

PORT = 8081  # as the original's gradio_server.py


def add_ui(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The web page alone, for a server that is running. As the original's gradio_server.py, it listens "
        "where SERVER_NAME and SERVER_PORT say, if the flags do not. The server's key is read from "
        "HYVIDEO_API_KEY or --api-key-file, and is the page's password too; any user name will do."
    )
    parser.add_argument(
        "--server", default="http://127.0.0.1:8000", metavar="URL", help="of the API (http://127.0.0.1:8000)"
    )
    parser.add_argument("--host", metavar="ADDRESS", help="to listen on ($SERVER_NAME, or 127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="N", help=f"($SERVER_PORT, or {PORT})")
    parser.add_argument("--api-key-file", metavar="FILE", help="the first key in it is used for the API")


def ui(args: argparse.Namespace) -> int:
    page_command()
    host, port = address(args.host, args.port, os.environ)
    keys = api_keys(os.environ.pop("HYVIDEO_API_KEY", ""), args.api_key_file)
    check(args.server, host, keys)
    from hyvideo_rt.ui.run import make_app, run

    print(f"http://{host}:{port}", file=sys.stderr, flush=True)
    run(make_app(args.server, keys[0] if keys else None, keys), host=host, port=port)
    return 0


def page_command() -> tuple[str, ...]:
    """What starts the page's process. Raises InvalidRequest if its libraries are not there."""
    missing = [name for name in ("gradio", "httpx") if find_spec(name) is None]
    if missing:
        raise InvalidRequest(
            f"the web page needs {' and '.join(missing)}; expected the extra [ui]\n"
            f"  pip install 'hyvideo-rt[ui]'"
        )
    return (sys.executable, "-m", "hyvideo_rt.ui.run")


def address(host: str | None, port: int | None, environment: Mapping[str, str]) -> tuple[str, int]:
    """Flags before the original's variables before our defaults."""
    named = environment.get("SERVER_PORT", "")
    if port is None and named and not (named.isascii() and named.isdigit()):
        raise InvalidRequest(f"got SERVER_PORT={named!r}; expected a port number, or leave it out")
    chosen = port if port is not None else int(named or PORT)
    if not 0 < chosen < 65536:
        raise InvalidRequest(f"got the port {chosen}; expected one from 1 to 65535")
    return host or environment.get("SERVER_NAME") or "127.0.0.1", chosen


def check(server: str, host: str, keys: tuple[str, ...]) -> None:
    """Raises InvalidRequest for an address that others reach without a password, or no address at all."""
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.path.strip("/"):
        raise InvalidRequest(f"got --server {server}; expected an address such as http://127.0.0.1:8000")
    if not keys and not is_loopback(host):
        raise InvalidRequest(
            f"got the address {host} without a key; expected one where others can reach the page\n"
            f"  set HYVIDEO_API_KEY or give --api-key-file, or take --host 127.0.0.1"
        )
