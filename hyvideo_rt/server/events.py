"""Progress as it happens: server-sent events of one video, and waiting for its end."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from hyvideo_rt.server.jobs import Job
from hyvideo_rt.server.service import Service, not_now
from hyvideo_rt.server.wire import Video, video_of

KEEPALIVE_S = 15.0
HANG_UP_CHECK_S = 1.0


async def follow(service: Service, job_id: str) -> AsyncIterator[str]:
    """An event for every change that the reader is fast enough to see; the latest state is never missed."""
    with service.desk.board.listening(job_id, moves=True) as changed:
        sent: Video | None = None
        while not service.ended:
            changed.clear()
            video = await run_in_threadpool(_video, service, job_id)
            if video is None:
                yield "event: deleted\ndata: {}\n\n"
                return
            if video != sent:
                yield f"event: video\ndata: {video.model_dump_json()}\n\n"
                sent = video
            if video.status in ("completed", "failed"):
                return
            try:
                await asyncio.wait_for(changed.wait(), KEEPALIVE_S)
            except TimeoutError:
                yield ": still there\n\n"


async def wait_until_final(request: Request, service: Service, job_id: str) -> Job | None:
    """The job when it has ended, deleted included: then as it last was. None if the client hung up first.

    Raises ApiError when the server ends before.
    """
    desk = service.desk
    with desk.board.listening(job_id, moves=False) as changed:
        last: Job | None = None
        while True:
            changed.clear()
            job = await run_in_threadpool(desk.store.get, job_id)
            if job is None or job.state.is_final:
                return job or last
            last = job
            if service.ended:
                raise not_now("draining")
            if await request.is_disconnected():
                return None
            try:
                await asyncio.wait_for(changed.wait(), HANG_UP_CHECK_S)
            except TimeoutError:
                continue


def _video(service: Service, job_id: str) -> Video | None:
    job = service.store.get(job_id)
    return video_of(service.desk.view(job), service.settings) if job else None
