from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from tiny.palette import BACKGROUNDS, COLOURS, MIN_CONTRAST, contrast, lab, nearest
from tiny.world import (
    COMBINATIONS,
    MOTIONS,
    SHAPES,
    Scene,
    Split,
    Thing,
    has_star,
    path,
    radius,
    sample_scene,
    sample_until,
    split,
)

SIZES = [(64, 64, 17), (64, 96, 17), (96, 64, 33), (48, 80, 9), (128, 128, 5)]


def scenes(count: int = 300, seed: int = 0) -> list[Scene]:
    rng = Random(seed)
    return [sample_scene(rng, "heldout" if i % 2 else "train", two_things=0.5) for i in range(count)]


def test_lab_of_known_colours() -> None:
    np.testing.assert_allclose(lab([255, 255, 255]), [100, 0, 0], atol=0.02)
    np.testing.assert_allclose(lab([0, 0, 0]), [0, 0, 0], atol=1e-9)
    np.testing.assert_allclose(lab([255, 0, 0]), [53.24, 80.09, 67.20], atol=0.02)


@pytest.mark.parametrize("name", COLOURS)
def test_nearest_names_a_colour_that_is_off_a_little(name: str) -> None:
    off = np.clip(np.add(COLOURS[name], (6, -6, 6)), 0, 255)
    assert nearest(off, COLOURS)[0] == name


def test_the_same_seed_gives_the_same_scenes() -> None:
    assert scenes(seed=7) == scenes(seed=7)
    assert scenes(seed=7) != scenes(seed=8)


def test_every_property_occurs_on_both_sides_of_the_split() -> None:
    for side in COMBINATIONS.values():
        colours, shapes, motions = map(set, zip(*side, strict=True))
        assert (colours, shapes, motions) == (set(COLOURS), set(SHAPES), set(MOTIONS))


def test_the_split_is_disjoint_complete_and_stays_as_it_is() -> None:
    train, heldout = set(COMBINATIONS["train"]), set(COMBINATIONS["heldout"])
    assert not train & heldout
    assert (len(train), len(heldout)) == (264, 24)
    assert ("red", "circle", "right") in train
    assert {("red", "square", "right"), ("black", "star", "up-left")} <= heldout


@pytest.mark.parametrize("side", COMBINATIONS)
def test_sampled_scenes_are_of_the_side_asked_for(side: Split) -> None:
    rng = Random(3)
    for _ in range(200):
        scene = sample_scene(rng, side, two_things=0.5)
        assert split(scene) == side
        assert all((t.colour, t.shape, t.motion) in COMBINATIONS[side] for t in scene.things)


def test_scenes_are_drawn_until_one_is_all_that_is_wanted() -> None:
    def is_pink(scene: Scene) -> bool:
        return scene.background == "pink"

    rng = Random(4)
    assert all(is_pink(each) and has_star(each) for each in _until([is_pink, has_star], rng, 20))
    assert not all(map(has_star, _until([is_pink], rng, 20)))
    usual = Random(5)
    assert _until([], Random(5), 20) == [sample_scene(usual, "train") for _ in range(20)]


def _until(wanted: list[Callable[[Scene], bool]], rng: Random, count: int) -> list[Scene]:
    return [sample_until(wanted, rng, "train") for _ in range(count)]


def test_one_heldout_thing_makes_the_scene_heldout() -> None:
    train, heldout = Thing("circle", "red", "small", "right"), Thing("square", "red", "small", "right")
    assert split(Scene("white", (train, heldout))) == "heldout"
    assert split(Scene("white", (train, replace(train, colour="green")))) == "train"


@pytest.mark.parametrize(("height", "width", "num_frames"), SIZES)
def test_things_stay_in_the_frame_and_go_their_way(height: int, width: int, num_frames: int) -> None:
    for scene in scenes():
        for thing in scene.things:
            centres, reach = path(thing, height, width, num_frames), 1.15 * radius(thing, height, width)
            assert (centres >= reach - 1e-9).all()
            assert (centres <= np.array([width, height]) - reach + 1e-9).all()
            way = centres[-1] - centres[0]
            assert tuple(np.sign(way.round(6))) == MOTIONS[thing.motion]
            assert thing.motion == "still" or np.abs(way).max() >= 0.13 * min(height, width)


@pytest.mark.parametrize(("height", "width", "num_frames"), SIZES)
def test_two_things_never_touch(height: int, width: int, num_frames: int) -> None:
    for scene in scenes():
        if len(scene.things) == 2:
            one, other = (path(thing, height, width, num_frames) for thing in scene.things)
            room = sum(1.15 * radius(thing, height, width) for thing in scene.things)
            assert np.abs(one - other).max(axis=1).min() > room


def test_of_two_things_the_first_is_above_or_on_the_left_all_the_time() -> None:
    pairs = [scene.things for scene in scenes() if len(scene.things) == 2]
    for one, other in pairs:
        before = path(one, 64, 64, 17) < path(other, 64, 64, 17)
        assert before.all(axis=0).any()
    assert len(pairs) > 100


def test_two_things_differ_in_shape_or_colour_and_stand_out() -> None:
    for scene in scenes():
        assert len({(thing.shape, thing.colour) for thing in scene.things}) == len(scene.things)
        for thing in scene.things:
            assert contrast(COLOURS[thing.colour], BACKGROUNDS[scene.background]) >= MIN_CONTRAST


def test_places_vary() -> None:
    starts = {tuple(path(scene.things[0], 64, 64, 17)[0].round(3)) for scene in scenes(200)}
    assert len(starts) > 190
