"""The page's process: `hyvideo-rt ui` alone, or `python -m hyvideo_rt.ui.run` started by the server."""

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import ASGIApp

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr
from gradio.themes.utils import fonts

from hyvideo_rt.ui.client import Client
from hyvideo_rt.ui.guard import Guard
from hyvideo_rt.ui.page import make_page
from hyvideo_rt.ui.words import LANGUAGES, preferred

ASKED = ("range", "if-range", "if-none-match")
ANSWERED = ("content-type", "content-length", "content-range", "accept-ranges", "etag", "cache-control")
ICON = (  # a triangle that says play
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" '
    'fill="#6366f1"/><path d="M12 9l12 7-12 7z" fill="#fff"/></svg>'
)
FONTS = ("system-ui", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "sans-serif")


def make_app(server: str, key: str | None, passwords: Sequence[str]) -> ASGIApp:
    """Everything is under /ui, a page for each language; / leads there."""
    videos = httpx.AsyncClient(
        base_url=server,
        headers=Client(server, key).headers,
        timeout=httpx.Timeout(30, connect=3),
        limits=httpx.Limits(max_connections=None),
        trust_env=False,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await videos.aclose()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.get("/")
    @app.get("/ui")
    @app.get("/ui/")
    def choose(request: Request) -> Response:
        """By what the browser asks for. Relative: a proxy may have put us anywhere."""
        language = preferred(request.headers.get("accept-language", "")).language
        below = "" if request.url.path == "/ui/" else "ui/"
        return RedirectResponse(f"{below}{language}/", 307, {"Vary": "Accept-Language"})

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(ICON, media_type="image/svg+xml")

    @app.api_route("/ui/videos/{video_id}", methods=["GET", "HEAD"])
    async def content(request: Request, video_id: str, variant: str = "video") -> Response:
        """Passed on from the API as it comes; nothing is kept here."""
        return await _content(videos, request, video_id, variant)

    for words in LANGUAGES.values():
        blocks = make_page(Client(server, key), words)
        gr.mount_gradio_app(app, blocks, f"/ui/{words.language}", **_quietly())
    return Guard(app, passwords)


def _quietly() -> dict[str, Any]:
    """What Gradio would do beyond the page: links, a history of runs, other protocols, other hosts' fonts."""
    theme = gr.themes.Default(
        primary_hue="indigo", font=[fonts.Font(name) for name in FONTS], font_mono=[fonts.Font("monospace")]
    )
    return {
        "theme": theme,
        "css_paths": Path(__file__).with_name("page.css"),
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "enable_monitoring": False,
        "show_error": False,
    }


async def _content(videos: httpx.AsyncClient, request: Request, video_id: str, variant: str) -> Response:
    if not video_id.replace("_", "").isalnum() or not video_id.isascii():
        return PlainTextResponse("not found\n", 404)
    asked = {name: request.headers[name] for name in ASKED if name in request.headers}
    question = videos.build_request(
        request.method, f"/v1/videos/{video_id}/content", params={"variant": variant}, headers=asked
    )
    try:
        answer = await videos.send(question, stream=True)
    except httpx.HTTPError:
        return PlainTextResponse("the server does not answer\n", 502)
    headers = {name: answer.headers[name] for name in ANSWERED if name in answer.headers}
    return StreamingResponse(
        answer.aiter_raw(), answer.status_code, headers, background=BackgroundTask(answer.aclose)
    )


def run(app: ASGIApp, **where: Any) -> None:
    """Until a signal. where: host and port, or uds, the path of a Unix socket."""
    uvicorn.run(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        ws="none",
        **where,
    )


def main() -> None:
    """One line of JSON on standard input says where and with what key; its end ends this process."""
    told = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, args=(told["socket"],), daemon=True).start()
    logging.basicConfig(level=logging.WARNING)
    run(make_app(told["server"], told["key"], ()), uds=told["socket"])


def _leave_with_parent(socket: str) -> None:
    """A server that was killed cannot tidy up; its end is the pipe's."""
    sys.stdin.read()
    with contextlib.suppress(OSError):
        os.unlink(socket)
        os.rmdir(os.path.dirname(socket))
    os._exit(0)


if __name__ == "__main__":
    main()
