"""Listeners are woken for what they have not heard yet, and only for that."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hyvideo_rt.server.board import Board, News, Position


async def heard(news: News) -> tuple[bool, bool]:
    """After what other threads have scheduled."""
    await asyncio.sleep(0)
    return news.changed.is_set(), news.anything.is_set()


def test_who_has_yet_to_look_is_not_woken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    board, wakes = Board(), list[Callable[..., object]]()

    async def follow() -> None:
        loop = asyncio.get_running_loop()
        schedule = loop.call_soon_threadsafe

        def wake(act: Callable[..., object], *args: Any) -> None:
            wakes.append(act)
            schedule(act, *args)

        monkeypatch.setattr(loop, "call_soon_threadsafe", wake)
        with board.listening("mine") as news:
            board.move("mine", Position("denoise", 1, 20))
            assert await heard(news) == (False, True)
            for done in range(2, 10):
                board.move("mine", Position("denoise", done, 20))
            assert len(wakes) == 1
            news.anything.clear()
            assert board.position("mine") == Position("denoise", 9, 20), "the latest"
            board.move("other", Position("denoise", 1, 20))
            assert await heard(news) == (False, False)
            board.move("mine", Position("denoise", 10, 20))
            assert await heard(news) == (False, True)
            board.clear("other")
            assert await heard(news) == (True, True), "a state is news to all"
            board.clear("mine")
            assert len(wakes) == 3
            news.changed.clear()
            news.anything.clear()
            board.wake()
            assert len(wakes) == 4, "both in one"
            assert await heard(news) == (True, True)
        board.wake()
        assert len(wakes) == 4, "nobody listens any more"

    asyncio.run(follow())
