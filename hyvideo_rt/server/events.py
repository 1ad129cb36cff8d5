"""Progress as it happens: server-sent events of one video, and waiting for its end."""

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi import Request, Response

from hyvideo_rt.server.desk import View
from hyvideo_rt.server.jobs import State
from hyvideo_rt.server.service import Service, not_now
from hyvideo_rt.server.wire import Video, video_of

KEEPALIVE_S = 15.0
MOVES_S = 0.25  # between two events of one state: whoever looks at a bar sees no more, and the CPU is busy
HANG_UP_CHECK_S = 1.0


async def follow(service: Service, job_id: str) -> AsyncIterator[str]:
    """An event for every change of state that the reader is fast enough to see, at once, and four a second of
    what moves within one. The latest of either is never missed.
    """
    desk = service.desk
    with desk.board.listening(job_id) as news:
        view: View | None = None
        sent: Video | None = None
        while not service.ended:
            moved = view if not news.changed.is_set() else None
            news.changed.clear()
            news.anything.clear()
            if moved and moved.job.state is State.RUNNING:
                view = desk.view(moved.job)  # of such a job from memory, without a thread
            else:
                view = await asyncio.to_thread(_view, service, job_id)
            if view is None:
                yield "event: deleted\ndata: {}\n\n"
                return
            video = video_of(view, service.settings)
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


def _view(service: Service, job_id: str) -> View | None:
    job = service.store.get(job_id)
    return service.desk.view(job) if job else None
