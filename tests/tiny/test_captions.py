import re
from collections import Counter
from random import Random

import pytest

from tiny.captions import COLOUR_WORDS, SHAPE_WORDS, canonical, caption
from tiny.world import Scene, Thing, sample_scene

RED_CIRCLE = Scene("white", (Thing("circle", "red", "small", "right"),))


def many(scene: Scene, count: int = 3000) -> Counter[str]:
    rng = Random(0)
    return Counter(caption(scene, rng) for _ in range(count))


def test_the_same_seed_gives_the_same_captions() -> None:
    first, second = Random(5), Random(5)
    assert [caption(RED_CIRCLE, first) for _ in range(50)] == [caption(RED_CIRCLE, second) for _ in range(50)]


def test_the_plain_caption_is_the_most_frequent() -> None:
    assert canonical(RED_CIRCLE) == "a red circle moves right on a white background"
    (most, count), *_ = many(RED_CIRCLE).most_common()
    assert most == canonical(RED_CIRCLE)
    assert count > 300


def test_captions_vary() -> None:
    captions = many(RED_CIRCLE)
    assert len(captions) > 1200
    assert any(text.startswith("on ") for text in captions)
    assert any(text.endswith(".") for text in captions)
    assert any(text[0].isupper() for text in captions)
    assert any("white" not in text for text in captions)
    assert any("small" in text for text in captions)
    assert any("drifting from left to right" in text for text in captions)


def test_articles_fit() -> None:
    rng = Random(1)
    for _ in range(3000):
        text = caption(sample_scene(rng, "train"), rng)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text, re.IGNORECASE), text


def test_every_caption_says_colour_shape_and_motion() -> None:
    rng = Random(2)
    ways = {
        "left": "left", "right": "right", "up": "up|top|rise|rising|climb", "down": "down|bottom|fall|sink",
        "still": "still|not|place|rest",
    }  # fmt: skip
    for _ in range(3000):
        scene = sample_scene(rng, "heldout")
        text = caption(scene, rng).lower()
        for thing in scene.things:
            assert any(word in text for word in COLOUR_WORDS.get(thing.colour, (thing.colour,)))
            assert any(word in text for word in SHAPE_WORDS[thing.shape])
            for way in thing.motion.split("-"):
                assert re.search(ways[way] + "|upper|lower", text), (thing.motion, text)


@pytest.mark.parametrize(
    ("motion", "words"),
    [("up", "moves up"), ("down-left", "moves down and left"), ("still", "stands still")],
)
def test_plain_wording_of_motions(motion: str, words: str) -> None:
    scene = Scene("black", (Thing("star", "orange", "large", motion),))
    assert canonical(scene) == f"an orange star {words} on a black background"


def test_plain_wording_of_two_things() -> None:
    scene = Scene("grey", (*RED_CIRCLE.things, Thing("square", "blue", "small", "left")))
    assert canonical(scene) == "a red circle moves right and a blue square moves left on a grey background"


def test_things_that_move_alike_may_share_a_verb() -> None:
    scene = Scene("grey", (*RED_CIRCLE.things, Thing("square", "blue", "small", "right")))
    assert any(
        re.fullmatch(r"a red circle and a blue square both drift right on.*", text)
        for text in many(scene, 20000)
    )
