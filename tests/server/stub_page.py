"""Stands in for the page's process: says what reached it, streams when told to, dies when asked to."""

import asyncio
import json
import os
import sys
import threading
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

TOLD: dict[str, Any] = json.loads(sys.stdin.readline())
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
GO = asyncio.Event()


async def echo(request: Request) -> Response:
    return JSONResponse(
        {
            "method": request.method,
            "target": request.scope["raw_path"].decode() + "?" + request.scope["query_string"].decode(),
            "headers": dict(request.headers),
            "bytes": len(await request.body()),
            "told": TOLD,
            "argv": sys.argv,
        },
        headers={"Connection": "close, X-Private", "X-Private": "1", "X-Public": "2"},
    )


async def events(request: Request) -> Response:
    async def two() -> Any:
        yield "data: 1\n\n"
        await GO.wait()
        yield "data: 2\n\n"

    return StreamingResponse(two(), media_type="text/event-stream")


async def go(request: Request) -> Response:
    GO.set()
    return Response("went")


async def die(request: Request) -> Response:
    os._exit(3)


if __name__ == "__main__":
    routes = [
        Route("/ui/events", events),
        Route("/ui/go", go),
        Route("/ui/die", die),
        Route("/{rest:path}", echo, methods=["GET", "POST"]),
    ]
    uvicorn.run(Starlette(routes=routes), uds=TOLD["socket"], log_level="error")
