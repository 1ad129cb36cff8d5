"""The tiny world: what a clip shows, decided once and without pixels.

A scene is one or two flat things that move in straight lines, at constant speed, over a plain background. All
places are fractions, so the same scene exists at every frame size and every number of frames.

The split holds whole combinations of colour, shape and motion out of training: those whose CRC-32 of
"colour shape motion" is divisible by 10 (24 of the 288). A scene belongs to "heldout" as soon as one of its
things does; a scene sampled for "heldout" has only held-out things, one sampled for "train" none.
"""

import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tiny.palette import COLOURS, backgrounds_for

Split = Literal["train", "heldout"]
Region = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the frame

SHAPES = ("circle", "square", "triangle", "star")
SIZES = {"small": 8 / 64, "large": 13 / 64}  # radius as a fraction of the frame's shorter side
MOTIONS = {  # (x, y), y down
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up-left": (-1, -1),
    "up-right": (1, -1),
    "down-left": (-1, 1),
    "down-right": (1, 1),
    "still": (0, 0),
}
REACH = 1.15  # no point of any shape is farther from its centre than this many radii
TWO_THINGS = 0.25  # the share of scenes with two things
HELDOUT_ONE_IN = 10

WHOLE: Region = (0.0, 0.0, 1.0, 1.0)
# Two things keep to a lane each, the one named first to the upper or the left one; 6 % of the frame between
# them stays empty, so that they never touch.
ROWS: tuple[Region, Region] = ((0.0, 0.0, 1.0, 0.47), (0.0, 0.53, 1.0, 1.0))
COLUMNS: tuple[Region, Region] = ((0.0, 0.0, 0.47, 1.0), (0.53, 0.0, 1.0, 1.0))


@dataclass(frozen=True)
class Thing:
    """A flat shape on a straight path.

    `travel` is the share of its free way that it goes, `place` where it lies across what is left free, and
    `region` the part of the frame that it never leaves.
    """

    shape: str
    colour: str
    size: str
    motion: str
    region: Region = WHOLE
    place: tuple[float, float] = (0.5, 0.5)
    travel: float = 0.8


@dataclass(frozen=True)
class Scene:
    background: str
    things: tuple[Thing, ...]


def radius(thing: Thing, height: int, width: int) -> float:
    """In pixels."""
    return SIZES[thing.size] * min(height, width)


def path(thing: Thing, height: int, width: int, num_frames: int) -> NDArray[np.float64]:
    """The centre in each frame, [F, 2] as (x, y) in pixels; one frame shows the start of the way."""
    extent = np.array([width, height], np.float64)
    reach = REACH * radius(thing, height, width)
    low = np.array(thing.region[:2]) * extent + reach
    free = np.array(thing.region[2:]) * extent - reach - low
    direction = np.array(MOTIONS[thing.motion], np.float64)
    moving = direction != 0
    distance = thing.travel * free[moving].min() if moving.any() else 0.0
    slack = free - moving * distance
    start = low + np.array(thing.place) * slack + (direction < 0) * distance
    centres: NDArray[np.float64] = start + np.linspace(0, 1, num_frames)[:, None] * direction * distance
    return centres


def split(scene: Scene) -> Split:
    """Which side of the train/heldout split (see the top of this file) the scene is on."""
    return "heldout" if any(_is_heldout(t.colour, t.shape, t.motion) for t in scene.things) else "train"


def _is_heldout(colour: str, shape: str, motion: str) -> bool:
    return zlib.crc32(f"{colour} {shape} {motion}".encode()) % HELDOUT_ONE_IN == 0


_EVERY = tuple(itertools.product(COLOURS, SHAPES, MOTIONS))
COMBINATIONS: dict[Split, tuple[tuple[str, str, str], ...]] = {
    "train": tuple(each for each in _EVERY if not _is_heldout(*each)),
    "heldout": tuple(each for each in _EVERY if _is_heldout(*each)),
}


def sample_scene(rng: Random, split: Split, two_things: float = TWO_THINGS) -> Scene:
    """A random scene of the split; `two_things` is the probability of a second thing."""
    if rng.random() < two_things:
        things = _two_things(rng, split)
    else:
        things = (_thing(rng, rng.choice(COMBINATIONS[split]), rng.choice(tuple(SIZES)), WHOLE),)
    backgrounds = backgrounds_for(tuple(thing.colour for thing in things))
    return Scene(rng.choice(backgrounds), things)


def sample_until(
    wanted: Sequence[Callable[[Scene], bool]], rng: Random, split: Split, two_things: float = TWO_THINGS
) -> Scene:
    """The first of random scenes that is all that is wanted."""
    while True:
        scene = sample_scene(rng, split, two_things)
        if all(is_so(scene) for is_so in wanted):
            return scene


def has_star(scene: Scene) -> bool:
    return any(thing.shape == "star" for thing in scene.things)


def _two_things(rng: Random, split: Split) -> tuple[Thing, ...]:
    """Two that a caption can tell apart. They are small where their ways cross: lanes are then short."""
    one, other = _distinct_pair(rng, split)
    lanes = _lanes(one[2], other[2])
    parallel = _axis(one[2]) | _axis(other[2]) in ({"x"}, {"y"}, set())
    sizes = tuple(SIZES) if parallel else ("small",)
    return tuple(
        _thing(rng, combination, rng.choice(sizes), region)
        for combination, region in zip((one, other), lanes, strict=True)
    )


def _distinct_pair(rng: Random, split: Split) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    while True:
        one, other = rng.choices(COMBINATIONS[split], k=2)
        if one[:2] != other[:2]:
            return one, other


def _axis(motion: str) -> set[str]:
    return {name for name, step in zip("xy", MOTIONS[motion], strict=True) if step}


def _lanes(*motions: str) -> tuple[Region, Region]:
    """Columns for what moves along y only, rows for anything else."""
    return COLUMNS if set.union(*map(_axis, motions)) == {"y"} else ROWS


def _thing(rng: Random, combination: tuple[str, str, str], size: str, region: Region) -> Thing:
    colour, shape, motion = combination
    place = (rng.random(), rng.random())
    return Thing(shape, colour, size, motion, region, place, travel=rng.uniform(0.75, 1.0))
