"""The HTTP application: routes, and what stands before all of them."""

from fastapi import FastAPI

from hyvideo_rt import __version__
from hyvideo_rt.server import faults
from hyvideo_rt.server.auth import RequireKey
from hyvideo_rt.server.requests import LimitBody, Observe
from hyvideo_rt.server.routes_server import server_routes
from hyvideo_rt.server.routes_videos import video_routes
from hyvideo_rt.server.service import Service


def make_app(service: Service) -> FastAPI:
    """No page of documentation, which would load scripts from elsewhere; `/openapi.json` needs the key."""
    app = FastAPI(title="hyvideo-rt", version=__version__, docs_url=None, redoc_url=None)
    faults.install(app)
    app.include_router(server_routes(service))
    app.include_router(video_routes(service))
    app.add_middleware(LimitBody, limit=service.settings.limits.body_bytes)
    app.add_middleware(RequireKey, keys=service.settings.api_keys)
    app.add_middleware(Observe, metrics=service.metrics)  # the last one added stands first
    return app
