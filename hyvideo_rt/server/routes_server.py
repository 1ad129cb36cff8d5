"""What the server says about itself: models, health, metrics and version."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from hyvideo_rt import __version__
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import presets_of
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.server.faults import ApiError, not_found
from hyvideo_rt.server.service import Service


def server_routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/models")
    def models() -> dict[str, Any]:
        """The one model, with its named sizes and how each would run."""
        return {"object": "list", "data": [_model(service)]}

    @router.get("/v1/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        if name != service.settings.model:
            raise not_found("model", name)
        return _model(service)

    @router.head("/live", include_in_schema=False)
    @router.get("/live")
    async def live() -> dict[str, str]:
        """The process answers; nothing else is asked, no thread that could be busy either."""
        return {"status": "alive"}

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready")
    def ready() -> JSONResponse:
        """200 when a request sent now would be made by a warm worker; 503 with the reasons otherwise."""
        troubles = service.troubles()
        status = "not ready" if troubles else "ready"
        return JSONResponse({"status": status, "reasons": troubles}, 503 if troubles else 200)

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    def health() -> JSONResponse:
        """The same for people: each worker, the queue and the room on disk."""
        troubles, load = service.troubles(), service.store.queue_load()
        content = {
            "status": "not ready" if troubles else "ready",
            "reasons": troubles,
            "workers": [
                {"device": s.spec.device, "warm": s.warm, "broken": s.broken, "busy": s.job is not None}
                for s in service.supervisors
            ],
            "queue": {"jobs": load.count, "seconds": round(load.seconds, 2)},
            "free_bytes": service.outputs.free_bytes(),
        }
        return JSONResponse(content, 503 if troubles else 200)

    @router.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/version")
    def version() -> dict[str, Any]:
        """Of the server, and what the worker says it computes with: equal for equal videos."""
        capabilities = service.capabilities
        return {"version": __version__, "identity": dict(capabilities.identity) if capabilities else None}

    return router


def _model(service: Service) -> dict[str, Any]:
    settings, capabilities = service.settings, service.capabilities
    if capabilities is None:
        raise ApiError(
            503, "the model is still being loaded", "worker_not_ready", headers={"Retry-After": "30"}
        )

    def size(name: str, bucket: Bucket) -> dict[str, Any]:
        built = str(bucket) in capabilities.built
        params = SamplingParams(bucket, seed=0, num_inference_steps=settings.default_steps)
        return {
            "preset": name,
            "size": f"{bucket.width}x{bucket.height}",
            "num_frames": bucket.num_frames,
            "built": built,
            "possible": (built or capabilities.eager) and capabilities.fits(settings.config, bucket),
            "backend": capabilities.backend if built else "eager" if capabilities.eager else None,
            "warm": bucket in settings.warm,
            "estimated_seconds": round(service.desk.costs.total(params), 2),
        }

    return {
        "id": settings.model,
        "object": "model",
        "created": int(service.started_at),
        "owned_by": "hyvideo-rt",
        "sizes": [size(*item) for item in presets_of(settings.config).items()],
        "default": {
            "size": f"{settings.default_bucket.width}x{settings.default_bucket.height}",
            "num_frames": settings.default_bucket.num_frames,
            "steps": settings.default_steps,
        },
    }
