"""Fields and cards: what the original's page offers, and that nothing people write becomes markup."""

from html.parser import HTMLParser

import pytest
from pages import video_json

from hyvideo_rt.ui import cards, form
from hyvideo_rt.ui.client import Model, Size, Video
from hyvideo_rt.ui.words import CHINESE, ENGLISH, Words

NASTY = "</p><script>alert(1)</script><img src=x onerror='alert(2)'>\" ${alert(3)} {{x}} &amp;"
PUBLISHED = Model(
    "HYVideo-T/2-cfgdistill",
    (
        Size("960x544", 129, built=True, warm=False, possible=True, estimated_seconds=100),
        Size("1280x720", 129, built=True, warm=True, possible=True, estimated_seconds=200),
        Size("1104x832", 129, built=False, warm=False, possible=False, estimated_seconds=200),
    ),
    "1280x720",
    129,
    50,
)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def video(**fields: object) -> Video:
    return Video.from_json({**video_json("video_1", "completed"), **fields})


def test_the_published_model_has_the_lengths_of_the_original() -> None:
    assert form.size_choices(PUBLISHED, ENGLISH) == [
        ("960×544 · built", "960x544"),
        ("1280×720 · ready", "1280x720"),
    ]
    assert [value for _, value in form.length_choices(PUBLISHED, "1280x720", CHINESE)] == ["65", "129"]
    assert form.pick(form.length_choices(PUBLISHED, "1280x720", ENGLISH), "129") == "129"
    assert form.pick(form.size_choices(PUBLISHED, ENGLISH), "1x1") == "1280x720"
    assert form.pick([], "1x1") is None


def test_the_fields_and_a_video_are_each_other_s_inverse() -> None:
    made = video(prompt="x", seed=7, true_cfg_scale=2.5, flow_shift=3.0, guidance_scale=4.5, steps=9)
    wanted = form.wanted(form.values_of(made))
    for name, value in wanted.to_json().items():
        assert getattr(made, name) == value
    assert form.wanted(["x", "64x64", "17", 3, -1, 1, 7, 6, None]).seed is None


@pytest.mark.parametrize("words", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_whatever_people_write_stays_text(words: Words) -> None:
    nasty = video(prompt=NASTY, negative_prompt=NASTY, error={"code": "x", "message": NASTY})
    active = video(prompt=NASTY, status="in_progress", stage={"name": NASTY, "done": 1, "total": 2})
    for text in (
        cards.notice(NASTY),
        cards.works([active], [nasty], words),
        cards.player(nasty, words),
        cards.gallery([nasty], None, words),
    ):
        found = Tags(text)
        assert "script" not in found.tags
        assert not [name for name, _ in found.attributes if name.startswith("on")]
        assert not [value for name, value in found.attributes if name == "src" and value == "x"]


def test_the_line_under_the_bar() -> None:
    running = video(
        status="in_progress", stage={"name": "denoise", "done": 12, "total": 50}, seconds_left=34.2
    )
    assert cards.status(running, ENGLISH) == "Denoising · 12 of 50 · 34 s left"
    assert cards.status(running, CHINESE) == "去噪 · 第 12 步，共 50 步 · 还剩 34 秒"
    waiting = video(status="queued", queue_position=2, seconds_left=600.0)
    assert cards.status(waiting, ENGLISH) == "Waiting, 2 before it · about 10 min left"
    assert cards.status(video(status="queued", queue_position=0), ENGLISH) == "Waiting, next in line"
