"""`/v1/videos`: check what came, ask the desk, answer in OpenAI's format."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from hyvideo_rt.server.events import follow, wait_for_answer
from hyvideo_rt.server.faults import HUNG_UP, ApiError, bad_request, invalid, not_found
from hyvideo_rt.server.jobs import Job, State, is_job_id
from hyvideo_rt.server.previews import MEDIA_TYPES, preview
from hyvideo_rt.server.ranges import file_response
from hyvideo_rt.server.service import Service
from hyvideo_rt.server.store import IdempotencyKey
from hyvideo_rt.server.wire import CreateVideo, ErrorBody, Video, VideoDeleted, VideoList, video_of

Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]
Variant = Literal["video", "thumbnail", "spritesheet"]
ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}}
_SCHEMA = CreateVideo.model_json_schema()
BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": _SCHEMA} for kind in ("application/json", "multipart/form-data")},
    }
}
FORM_FIELDS = 64


def video_routes(service: Service) -> APIRouter:
    router, desk, settings = APIRouter(prefix="/v1/videos", responses=ERRORS), service.desk, service.settings
    drawing = asyncio.Lock()  # one picture at a time, waited for without holding a thread

    def find(job_id: str) -> Job:
        job = service.store.get(job_id) if is_job_id(job_id) else None
        if job is None:
            raise not_found("video", job_id)
        return job

    async def checked(request: Request, key: str | None) -> Callable[[], tuple[Job, bool]]:
        """What is left to do, in a thread: the job and whether it is new."""
        wanted = await _wanted(request)
        video = wanted.resolve(settings)
        if key is None:
            service.refuse_at_once(video)
        named = IdempotencyKey(key, wanted.fingerprint()) if key else None
        return partial(service.submit, video, named)

    @router.post("", openapi_extra=BODY)
    async def create(request: Request, idempotency_key: Key = None) -> Video:
        """Queue a video. With an Idempotency-Key, the same request again is the same video."""
        submit = await checked(request, idempotency_key)
        return await asyncio.to_thread(lambda: video_of(desk.view(submit()[0]), settings))

    @router.post("/sync", openapi_extra=BODY, response_class=Response)
    async def create_and_wait(request: Request, idempotency_key: Key = None) -> Response:
        """The MP4 itself, when it is finished. Whoever hangs up before has cancelled it."""
        with desk.board.listening() as news:
            job, new = await asyncio.to_thread(await checked(request, idempotency_key))
            if not new:
                news.changed.set()  # it may have ended before
            try:
                async with asyncio.timeout(settings.limits.sync_s):
                    answer = await wait_for_answer(
                        request, service, news.changed, lambda: finished(request, job)
                    )
            except TimeoutError:
                raise ApiError(
                    504, f"{job.id} is not finished yet; ask for it at /v1/videos", "timeout"
                ) from None
        if answer is None:  # nobody listens
            if new:
                await asyncio.to_thread(desk.cancel, job.id)
            return Response(status_code=HUNG_UP)
        answer.headers["X-Video-Id"] = job.id
        return answer

    def finished(request: Request, job: Job) -> Response | None:
        """Its MP4; None as long as it waits or runs. Raises ApiError if it has ended without one."""
        now = service.store.get(job.id)
        if now and not now.state.is_final:
            return None
        if now is None or now.state is not State.COMPLETED:
            raise _not_made(now or job)
        return content_of(request, now, "video")

    @router.get("")
    def videos(
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> VideoList:
        """The page behind the video `after`, newest first unless asked otherwise."""
        start = _cursor(service, after)
        jobs = service.store.page(start, limit + 1, newest_first=order == "desc")
        shown = [video_of(desk.view(job), settings) for job in jobs[:limit]]
        ids = [video.id for video in shown]
        return VideoList(
            data=shown,
            first_id=ids[0] if ids else None,
            last_id=ids[-1] if ids else None,
            has_more=len(jobs) > limit,
        )

    @router.get("/{video_id}")
    def retrieve(video_id: str) -> Video:
        return video_of(desk.view(find(video_id)), settings)

    @router.delete("/{video_id}")
    def delete(video_id: str) -> VideoDeleted:
        """Row and file are gone; if it was being made, its device stops within two steps or one tile."""
        if not desk.delete(find(video_id).id):
            raise not_found("video", video_id)
        return VideoDeleted(id=video_id)

    @router.post("/{video_id}/cancel")
    def cancel(video_id: str) -> Video:
        """Stop it but keep its record: it then is `failed` with the code `cancelled`. Finished: no effect."""
        desk.cancel(find(video_id).id)
        return retrieve(video_id)

    def content_of(request: Request, job: Job, variant: Variant) -> Response:
        if job.state is not State.COMPLETED or job.output is None:
            raise ApiError(409, f"{job.id} is {job.state}; expected a completed video", f"video_{job.state}")
        try:
            if variant == "video":
                path, kind = service.outputs.video(job.id), "video/mp4"
            else:
                path = preview(service.outputs, job.id, variant, job.bucket.num_frames)
                kind = MEDIA_TYPES[variant]
            etag = job.output.sha256 if variant == "video" else f"{job.output.sha256}-{variant}"
            return file_response(request, path, kind, etag)
        except FileNotFoundError:
            raise not_found("video", job.id) from None

    @router.head("/{video_id}/content", include_in_schema=False)
    @router.get("/{video_id}/content", response_class=Response)
    async def content(request: Request, video_id: str, variant: Variant = "video") -> Response:
        """The MP4, or pictures of it. One range at a time."""
        job = await asyncio.to_thread(find, video_id)
        if variant == "video":
            return await asyncio.to_thread(content_of, request, job, variant)
        async with drawing:
            return await asyncio.to_thread(content_of, request, job, variant)

    @router.get("/{video_id}/events", response_class=StreamingResponse)
    async def events(video_id: str) -> StreamingResponse:
        """Server-sent events `video`, each the whole Video object, whenever it changed; ends with the job."""
        job = await asyncio.to_thread(find, video_id)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(follow(service, job.id), media_type="text/event-stream", headers=headers)

    return router


def _not_made(job: Job) -> ApiError:
    """Of a video that somebody has waited for."""
    if job.fault is None:
        return ApiError(409, f"{job.id} was cancelled before it was finished", "cancelled")
    return ApiError(500, job.fault.message, job.fault.code)


async def _wanted(request: Request) -> CreateVideo:
    """Of a JSON object, whose types count, or of a form, where every number is text."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _validated(_json_object(await request.body()), strict=True)
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        form = await request.form(max_files=1, max_fields=FORM_FIELDS, max_part_size=1 << 20)
        names = [name for name, _ in form.multi_items()]
        if any(isinstance(value, UploadFile) for value in form.values()) or "input_reference" in names:
            raise bad_request(
                "this model makes videos from text; leave the file out",
                "input_reference",
                "unsupported_parameter",
            )
        if len(set(names)) < len(names):
            raise bad_request("got a field twice", None)
        return _validated(dict(form), strict=False)
    raise ApiError(
        415,
        "expected a body of application/json or multipart/form-data",
        "unsupported_media_type",
    )


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise bad_request("the body is not valid JSON", None, "invalid_json") from None
    if not isinstance(content, dict):
        raise bad_request("expected a JSON object", None, "invalid_json")
    if "input_reference" in content:
        raise bad_request("this model makes videos from text", "input_reference", "unsupported_parameter")
    return content


def _validated(content: dict[str, Any], *, strict: bool) -> CreateVideo:
    try:
        return CreateVideo.model_validate(content, strict=strict)
    except ValidationError as error:
        raise invalid(list(error.errors())) from None


def _cursor(service: Service, after: str | None) -> int | None:
    if after is None:
        return None
    job = service.store.get(after) if is_job_id(after) else None
    if job is None:
        raise bad_request("got an unknown video id", "after")
    return job.seq
