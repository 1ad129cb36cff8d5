"""What one browser tab looks at, and what the API has for it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from hyvideo_rt.ui.client import Client, Model, Refused, Video

GALLERY = 24


class Tab:
    """Changed by clicks and by the timer, which may come at once: whoever holds the lock has it for himself.

    asked: videos that were ordered here and have not been seen to end well. drawn: what was sent last.
    """

    def __init__(self) -> None:
        self.model: Model | None = None
        self.asked: list[str] = []
        self.shown: str | None = None
        self.count = GALLERY
        self.drawn: tuple[object, ...] = ()
        self.lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> Self:
        """Gradio copies the first one for each tab; a lock has no copy."""
        return type(self)()


@dataclass(frozen=True)
class Found:
    """Sorted for the page: active in the order of the queue, completed with the newest first."""

    active: Sequence[Video] = ()
    failed: Sequence[Video] = ()
    completed: Sequence[Video] = ()
    shown: Video | None = None
    has_older: bool = False


def look(client: Client, tab: Tab) -> Found:
    """The newest of this tab's own videos is shown when it is finished. Raises Refused."""
    tab.model = tab.model or client.model()
    videos = client.latest(tab.count + 1)
    completed = [video for video in videos if video.is_completed]
    by_id = {video.id: video for video in videos}
    own = [by_id[video_id] for video_id in tab.asked if video_id in by_id]
    tab.shown = next((video.id for video in reversed(own) if video.is_completed), tab.shown)
    tab.asked = [video.id for video in own if not video.is_completed]
    shown = (by_id.get(tab.shown) or _still_there(client, tab.shown)) if tab.shown else None
    tab.shown = shown.id if shown else None
    return Found(
        active=[video for video in reversed(videos) if video.is_active],
        failed=[video for video in own if video.status == "failed"],
        completed=completed[: tab.count],
        shown=shown,
        has_older=len(completed) > tab.count,
    )


def _still_there(client: Client, video_id: str) -> Video | None:
    try:
        return client.retrieve(video_id)
    except Refused as error:
        if error.status == 404:
            return None
        raise
