"""Progress as it happens: server-sent events of one video, and waiting for its end."""

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi import Request, Response

from hyvideo_rt.server.service import Service, not_now
from hyvideo_rt.server.wire import Video, video_of

KEEPALIVE_S = 15.0
MOVES_S = 0.1  # between two events of one state: whoever looks at a bar sees no more, and the CPU is busy
HANG_UP_CHECK_S = 1.0


async def follow(service: Service, job_id: str) -> AsyncIterator[str]:
    """An event for every change of state that the reader is fast enough to see, at once, and ten a second of
    what moves within one. The latest of either is never missed.
    """
    with service.desk.board.listening(job_id) as news:
        sent: Video | None = None
        while not service.ended:
            news.changed.clear()
            news.anything.clear()
            video = await asyncio.to_thread(_video, service, job_id)
            if video is None:
                yield "event: deleted\ndata: {}\n\n"
                return
            if video != sent:
                yield f"event: video\ndata: {video.model_dump_json()}\n\n"
                sent = video
            if video.status in ("completed", "failed"):
                return
            if await _within(news.changed, MOVES_S) or await _within(news.anything, KEEPALIVE_S):
                continue
            yield ": still there\n\n"


async def wait_for_answer(
    request: Request, service: Service, changed: asyncio.Event, look: Callable[[], Response | None]
) -> Response | None:
    """What `look` says, in a thread, after whatever has changed, once it says anything; None if the client
    hung up first.

    Raises ApiError when the server ends before.
    """
    while True:
        if not await _within(changed, HANG_UP_CHECK_S) and await request.is_disconnected():
            return None
        changed.clear()
        if answer := await asyncio.to_thread(look):
            return answer
        if service.ended:
            raise not_now("draining")


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _video(service: Service, job_id: str) -> Video | None:
    job = service.store.get(job_id)
    return video_of(service.desk.view(job), service.settings) if job else None
