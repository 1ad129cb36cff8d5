"""What a clip shows, from its pixels alone and without machine learning.

The background is the median colour. What differs from it is joined over space *and* time into connected
volumes: each is one thing with its track. A thing's colour is the median of its core, its direction the
straight line through its centroids, its shape the template of equal area that covers it best, and its size
follows from that area. Whatever fits nothing well is "unknown", which is never right.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tiny.palette import BACKGROUNDS, COLOURS, nearest
from tiny.render import AREAS, coverage
from tiny.world import MOTIONS, SHAPES, SIZES, Scene, Thing

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

UNKNOWN = "unknown"
MIN_DISTANCE = 36.0  # RGB distance to the background that makes a pixel part of a thing; pairs in use have 93
MIN_VOLUME = 0.006  # of a clip's pixels; the smallest thing of the world covers 0.027
MIN_PRESENCE = 0.9  # of the frames
MAX_COLOUR_DISTANCE = 40.0  # CIELAB; red and orange are 43 apart, half-way is nearer to one of them
MAX_MISMATCH = 0.15  # 1 - Dice; a sharp circle taken for a square of equal area has 0.09
STILL = 0.06  # of the shorter side; the shortest way in the world is 0.137
MAX_WOBBLE = 0.05  # rms distance from uniform straight motion, of the shorter side
SHAPE_FRAMES = 5
BLUR_ROUNDS = (0, 1, 3)  # of the binomial, one after the other: sigma 0, 0.7 and 1.4 pixels


@dataclass(frozen=True)
class Seen:
    """One thing as seen; `size_ratio` is its radius over the frame's shorter side."""

    shape: str
    colour: str
    size: str
    motion: str
    size_ratio: float
    mismatch: float


@dataclass(frozen=True)
class Verdict:
    background: str
    things: tuple[Seen, ...]


def judge(frames: NDArray[np.uint8]) -> Verdict:
    """frames [F, H, W, 3], F at least 2."""
    clip = frames.astype(np.float32)
    background = np.median(clip.reshape(-1, 3), axis=0)
    distance = np.linalg.norm(_smooth(clip - background), axis=-1)
    labels = _connected(distance > MIN_DISTANCE)
    values, volumes = np.unique(labels[labels > 0], return_counts=True)
    large = values[volumes >= MIN_VOLUME * labels.size]
    things = [_look(clip - background, background, labels == value, distance) for value in large]
    return Verdict(nearest(background, BACKGROUNDS)[0], tuple(things))


def score(verdict: Verdict, scene: Scene) -> dict[str, bool]:
    """What is right, for every thing of the scene at once.

    `all` is count, colour, shape and direction; size and background, which a caption may leave out, are
    apart. Things are paired by how they look, and where that is a tie by how they move.
    """
    count = len(verdict.things) == len(scene.things)
    pairings = [
        _compare(seen, scene.things) for seen in itertools.permutations(verdict.things, len(scene.things))
    ]
    best = max(pairings, key=_merit, default=_compare((), scene.things))
    return {
        **best,
        "count": count,
        "background": verdict.background == scene.background,
        "all": count and best["colour"] and best["shape"] and best["direction"],
    }


def _merit(right: dict[str, bool]) -> tuple[int, int]:
    return right["colour"] + right["shape"], right["direction"] + right["size"]


def _compare(seen: tuple[Seen, ...], things: tuple[Thing, ...]) -> dict[str, bool]:
    pairs = list(zip(seen, things, strict=False))
    complete = len(seen) == len(things)
    return {
        "colour": complete and all(s.colour == t.colour for s, t in pairs),
        "shape": complete and all(s.shape == t.shape for s, t in pairs),
        "direction": complete and all(s.motion == t.motion for s, t in pairs),
        "size": complete and all(s.size == t.size for s, t in pairs),
    }


def _look(contrast: Floats, background: Floats, mask: Mask, distance: Floats) -> Seen:
    """contrast [F, H, W, 3] is the clip less its background; mask and distance [F, H, W]."""
    colour = _core_colour(contrast, mask, distance)
    if np.linalg.norm(colour) < MIN_DISTANCE:
        return Seen(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, size_ratio=0.0, mismatch=1.0)
    alpha = np.clip(contrast @ colour / (colour @ colour), 0, 1) * _grown(mask)
    side = min(mask.shape[1:])
    name, error = nearest(background + colour, COLOURS)
    shape, mismatch, size_ratio = _shape(alpha)
    return Seen(
        shape=shape if mismatch <= MAX_MISMATCH else UNKNOWN,
        colour=name if error <= MAX_COLOUR_DISTANCE else UNKNOWN,
        size=min(SIZES, key=lambda size: abs(np.log(SIZES[size] / size_ratio))),
        motion=_motion(alpha, side),
        size_ratio=size_ratio,
        mismatch=mismatch,
    )


def _core_colour(contrast: Floats, mask: Mask, distance: Floats) -> Floats:
    """The median of the pixels that the blurred edge does not reach, relative to the background."""
    core = mask & (distance > 0.75 * np.percentile(distance[mask], 90))
    return np.asarray(np.median(contrast[core], axis=0))


def _motion(alpha: Floats, side: int) -> str:
    """Where the centroids' straight line leads: "still" for a short one, unknown if they keep to none."""
    mass = alpha.sum(axis=(1, 2))
    present = mass > 0.4 * np.median(mass[mass > 0])
    if present.mean() < MIN_PRESENCE:
        return UNKNOWN
    times = np.flatnonzero(present) / (len(alpha) - 1)
    track = _centroids(alpha[present])
    slope, start = np.polyfit(times, track, 1)
    wobble = np.sqrt(((track - start - times[:, None] * slope) ** 2).sum(axis=1).mean())
    if wobble > MAX_WOBBLE * side:
        return UNKNOWN
    if np.hypot(*slope) < STILL * side:
        return "still"
    moving = {name: np.array(step) / np.hypot(*step) for name, step in MOTIONS.items() if name != "still"}
    return max(moving, key=lambda name: float(moving[name] @ slope))


def _shape(alpha: Floats) -> tuple[str, float, float]:
    """The best template over a few frames: its name, 1 - Dice, and its radius over the shorter side."""
    frames = alpha[alpha.sum(axis=(1, 2)) > 0]
    frames = frames[np.linspace(0, len(frames) - 1, SHAPE_FRAMES).round().astype(int)]
    fits = {shape: _mismatch(frames, shape) for shape in SHAPES}
    best = min(fits, key=lambda shape: fits[shape])
    area = float(np.median(frames.sum(axis=(1, 2))))
    return best, fits[best], float(np.sqrt(area / AREAS[best])) / min(alpha.shape[1:])


def _mismatch(alpha: Floats, shape: str) -> float:
    """How badly the shape of equal area and centroid covers alpha [F, H, W]: 0 is equal, 1 disjoint.

    The shape may be as blurred as the clip is: the best of a few softnesses counts.
    """
    centres, areas = _centroids(alpha), alpha.sum(axis=(1, 2))
    radii = np.sqrt(areas / AREAS[shape])
    template = coverage(shape, torch.from_numpy(centres), torch.from_numpy(radii), *alpha.shape[1:]).numpy()
    mismatches = []
    for rounds in BLUR_ROUNDS:
        for _ in range(rounds):
            template = _smooth(template)
        mismatches.append(float(np.abs(alpha - template).sum() / (alpha + template).sum()))
    return min(mismatches)


def _centroids(alpha: Floats) -> Floats:
    """[F, H, W] to [F, 2] as (x, y) in pixels, pixel centres at halves."""
    mass = alpha.sum(axis=(1, 2))
    x = alpha.sum(axis=1) @ (np.arange(alpha.shape[2]) + 0.5)
    y = alpha.sum(axis=2) @ (np.arange(alpha.shape[1]) + 0.5)
    return np.stack([x / mass, y / mass], axis=1)


def _smooth(clip: Floats) -> Floats:
    """Binomial 3 x 3 over H and W of [F, H, W, ...], edges repeated: noise falls to three eighths."""
    return _smooth_along(_smooth_along(clip, 1), 2)


def _smooth_along(clip: Floats, axis: int) -> Floats:
    quarter = np.moveaxis(0.25 * clip, axis, 0)
    smooth = 2 * quarter
    smooth[1:] += quarter[:-1]
    smooth[:-1] += quarter[1:]
    smooth[[0, -1]] += quarter[[0, -1]]
    return np.moveaxis(smooth, 0, axis)


def _grown(mask: Mask) -> Mask:
    """[F, H, W] and the pixels next to it in H and W: the thing's soft edge."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    return (
        padded[:, 1:-1, 1:-1]
        | padded[:, :-2, 1:-1]
        | padded[:, 2:, 1:-1]
        | padded[:, 1:-1, :-2]
        | padded[:, 1:-1, 2:]
    )


def _connected(mask: Mask) -> NDArray[np.int64]:
    """Labels [F, H, W] of the volumes that hang together through faces; 0 outside the mask.

    Every voxel points at the largest index known of its volume; each round takes the largest of the six
    neighbours, then follows the pointers, so that rounds grow with the logarithm of a volume's extent.
    """
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        before = labels
        for axis in range(3):
            labels = _largest_neighbour(labels, axis)
        labels = np.where(mask, labels, 0)
        labels = np.concatenate([[0], labels.ravel()])[labels]
        if np.array_equal(labels, before):
            return labels


def _largest_neighbour(labels: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    moved = np.moveaxis(labels, axis, 0)
    largest = moved.copy()
    np.maximum(largest[1:], moved[:-1], out=largest[1:])
    np.maximum(largest[:-1], moved[1:], out=largest[:-1])
    return np.moveaxis(largest, 0, axis)
