from dataclasses import replace
from random import Random

import numpy as np
import pytest

from tiny.judge import UNKNOWN, judge, score
from tiny.proof import DAMAGES, WRONGS, share_noticed, share_right
from tiny.render import render
from tiny.world import MOTIONS, SHAPES, Scene, Thing, sample_scene

SCENE = Scene("white", (Thing("circle", "red", "small", "right"),))


def test_it_reads_true_clips() -> None:
    """100 % of 500 with `python -m tiny.proof`."""
    assert share_right(150, "clean", seed=1) >= 0.99


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "clean"])
def test_it_reads_damaged_clips(damage: str) -> None:
    assert share_right(40, damage, seed=2) >= 0.97


@pytest.mark.parametrize("wrong", WRONGS)
def test_it_notices_wrong_clips_and_what_is_wrong(wrong: str) -> None:
    assert share_noticed(30, wrong, seed=3) == 1


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_and_motion(shape: str, motion: str) -> None:
    scene = Scene("grey", (Thing(shape, "yellow", "large", motion),))
    (seen,) = judge(render(scene, 64, 64, 9)).things
    assert (seen.shape, seen.motion, seen.colour, seen.size) == (shape, motion, "yellow", "large")


def test_a_track_that_turns_back_has_no_direction() -> None:
    frames = render(SCENE, 64, 64, 17)
    (seen,) = judge(np.concatenate([frames[::2], frames[-2::-2]])).things
    assert seen.motion == UNKNOWN


def test_a_blob_has_no_shape() -> None:
    """A bar six times as long as it is high is none of the four."""
    frames = np.full((9, 64, 64, 3), 250, np.uint8)
    frames[:, 30:36, 12:48] = (220, 40, 40)
    (seen,) = judge(frames).things
    assert (seen.shape, seen.colour) == (UNKNOWN, "red")


def test_an_extra_thing_is_a_wrong_count() -> None:
    two = sample_scene(Random(0), "train", two_things=1)
    scores = score(judge(render(two, 64, 64, 17)), replace(two, things=two.things[:1]))
    assert scores == {"colour": True, "shape": True, "direction": True, "size": True,
                      "background": True, "count": False, "all": False}  # fmt: skip


def test_a_wrong_background_is_told_apart() -> None:
    scores = score(judge(render(replace(SCENE, background="black"), 64, 64, 17)), SCENE)
    assert not scores["background"]
    assert scores["all"]


def test_things_in_any_order_score_the_same() -> None:
    two = sample_scene(Random(0), "train", two_things=1)
    verdict = judge(render(two, 64, 64, 17))
    assert all(score(verdict, two).values())
    assert all(score(verdict, replace(two, things=two.things[::-1])).values())
