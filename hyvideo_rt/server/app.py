"""The HTTP application: routes, and what stands before all of them."""

from fastapi import FastAPI

from hyvideo_rt import __version__
from hyvideo_rt.server import faults
from hyvideo_rt.server.auth import OwnMachineOnly, RequireKey
from hyvideo_rt.server.page_process import PageProcess
from hyvideo_rt.server.requests import LimitBody, Observe
from hyvideo_rt.server.routes_server import server_routes
from hyvideo_rt.server.routes_videos import video_routes
from hyvideo_rt.server.service import Service


def make_app(service: Service, page: PageProcess | None = None) -> FastAPI:
    """No page of documentation, which would load scripts from elsewhere; `/openapi.json` needs the key."""
    app = FastAPI(title="hyvideo-rt", version=__version__, docs_url=None, redoc_url=None)
    faults.install(app)
    app.include_router(video_routes(service))  # first: whoever asks for these waits for an answer
    app.include_router(server_routes(service))
    if page:
        from hyvideo_rt.server.page_proxy import PageProxy  # httpx is of the extra [ui]

        app.router.routes.extend(PageProxy(page.socket).routes())
    else:
        app.add_api_route("/", _what_this_is, include_in_schema=False)
    keys = service.settings.api_keys
    if keys and page:
        keys = (*keys, page.key)
    limits = service.settings.limits
    app.add_middleware(LimitBody, limit=limits.body_bytes, seconds=limits.body_s)
    if keys:
        app.add_middleware(RequireKey, keys=keys, page=page is not None)
    else:
        app.add_middleware(OwnMachineOnly)
    app.add_middleware(Observe, metrics=service.metrics)  # the last one added stands first
    return app


def _what_this_is() -> dict[str, str]:
    """For whoever opens the address in a browser and expects a page."""
    return {
        "name": "hyvideo-rt",
        "version": __version__,
        "api": "/v1/videos",
        "schema": "/openapi.json",
        "page": "none; start the server with --ui",
    }
