"""Both languages say everything, each in its own script."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields

import pytest

from hyvideo_rt.server.desk import WORTH_ANOTHER
from hyvideo_rt.ui.client import Refused
from hyvideo_rt.ui.words import CHINESE, ENGLISH, Words, preferred

CJK = re.compile(r"[\u4e00-\u9fff]")
HOLE = re.compile(r"{\w+}")
SAID_IN_THE_OTHER = {"language", "other_language"}


def sentences(words: Words) -> Iterator[tuple[str, str]]:
    for field in fields(words):
        value = getattr(words, field.name)
        if isinstance(value, Mapping):
            yield from ((f"{field.name}.{key}", text) for key, text in value.items())
        else:
            yield field.name, value


def test_both_say_the_same_things() -> None:
    english, chinese = dict(sentences(ENGLISH)), dict(sentences(CHINESE))
    assert list(english) == list(chinese)
    for name, text in english.items():
        assert set(HOLE.findall(text)) == set(HOLE.findall(chinese[name])), name


def test_nothing_is_empty_and_each_is_in_its_script() -> None:
    for name, text in sentences(ENGLISH):
        assert text.strip(), name
        assert name in SAID_IN_THE_OTHER or not CJK.search(text), name
    for name, text in sentences(CHINESE):
        assert text.strip(), name
        assert name in SAID_IN_THE_OTHER or CJK.search(text), name


def test_every_way_in_which_a_video_may_fail_has_a_sentence() -> None:
    not_now = {"draining", "worker_broken", "worker_not_ready", "disk_full"}
    of_requests = {"queue_full", "too_expensive", "does_not_fit", "size_not_built", "invalid_api_key"}
    assert WORTH_ANOTHER | not_now | of_requests | {"cancelled", "numerical_error"} <= set(ENGLISH.faults)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("en;q=0.3, zh-TW;q=0.4", "zh"),
        ("fr,de;q=0.9", "en"),
        ("fr, zh;q=0.2", "zh"),
        ("zh;q=0", "en"),
        ("zh;q=nan,;;,=", "en"),
        ("zh;q=" + "9" * 400, "en"),
    ],
)
def test_the_language_that_the_browser_prefers(header: str, language: str) -> None:
    assert preferred(header).language == language


def test_refusals_are_said_in_the_language_of_the_page() -> None:
    full = Refused(429, "queue_full", "3 videos wait", retry_after_s=17)
    assert ENGLISH.refusal(full) == "Too many videos are waiting. Try again in 17 s."
    assert CHINESE.refusal(full) == "排队的视频太多了。 请在 17 秒后重试。"
    field = Refused(400, "invalid_value", "seed: Input should be greater\n  hint", "seed")
    assert CHINESE.refusal(field) == "服务器不接受“随机种子”：seed: Input should be greater"
    unknown = Refused(418, "teapot", "I am a teapot")
    assert ENGLISH.refusal(unknown) == "The server refused: I am a teapot"
