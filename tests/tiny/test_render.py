import time
from random import Random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tiny.palette import BACKGROUNDS, COLOURS
from tiny.render import AREAS, coverage, render, render_batch, to_uint8
from tiny.world import SHAPES, Scene, Thing, path, radius, sample_scene


def supersampled(
    shape: str, centre: tuple[float, float], size: float, side: int, k: int
) -> NDArray[np.float64]:
    """Coverage by counting k x k points per pixel against the corners of the shape: the oracle."""
    fine = (np.arange(side * k) + 0.5) / k
    x, y = np.meshgrid(fine - centre[0], fine - centre[1])
    inside = np.hypot(x, y) <= size if shape == "circle" else _in_polygon(x, y, size * _corners(shape))
    return np.asarray(inside.reshape(side, k, side, k).mean(axis=(1, 3)))


def _corners(shape: str) -> NDArray[np.float64]:
    radii, count = {"square": ([0.9 * 2**0.5], 4), "triangle": ([1.15], 3), "star": ([1.15, 0.5175], 10)}[
        shape
    ]
    angles = 2 * np.pi * np.arange(count) / count + (np.pi / 4 if shape == "square" else 0)
    lengths = np.resize(radii, count)
    return np.stack([lengths * np.sin(angles), -lengths * np.cos(angles)], axis=1)  # the first is on top


def _in_polygon(
    x: NDArray[np.float64], y: NDArray[np.float64], corners: NDArray[np.float64]
) -> NDArray[np.bool_]:
    inside = np.zeros(x.shape, bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, 1, axis=0), strict=True):
        if y1 != y2:
            inside ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


@pytest.mark.parametrize("size", [8.0, 13.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_equal_a_supersampled_polygon(shape: str, size: float) -> None:
    exact = supersampled(shape, (20.3, 19.6), size, 40, k=16)
    ours = coverage(shape, torch.tensor([20.3, 19.6]), torch.tensor(size), 40, 40).numpy()
    # Half a unit of ramp around an edge errs by at most 1/8 where the edge is straight, more only at corners.
    assert np.abs(ours - exact).mean() < 0.004
    assert np.mean(np.abs(ours - exact) > 0.13) < 0.01
    assert ours.sum() == pytest.approx(AREAS[shape] * size**2, rel=0.02)


def test_a_known_scene_pixel_by_pixel() -> None:
    thing = Thing("circle", "red", "small", "right", place=(0.0, 0.5), travel=1.0)
    frames = render(Scene("white", (thing,)), 64, 64, 17)
    assert frames.shape == (17, 64, 64, 3)
    assert frames.dtype == np.uint8
    assert tuple(frames[0, 0, 0]) == BACKGROUNDS["white"]
    for frame, (x, y) in zip(frames, path(thing, 64, 64, 17), strict=True):
        assert tuple(frame[int(y), int(x)]) == COLOURS["red"]
        assert tuple(frame[int(y), int(x - 9.6)]) == BACKGROUNDS["white"]
    reds = (frames == COLOURS["red"]).all(axis=-1)
    assert np.flatnonzero(reds[0].any(axis=0)).max() < 20
    assert np.flatnonzero(reds[-1].any(axis=0)).min() > 44


def test_edges_are_blended() -> None:
    frames = render(
        Scene("white", (Thing("circle", "black", "large", "still", place=(0.3, 0.6)),)), 64, 64, 5
    )
    assert len(np.unique(frames)) > 20
    assert (frames == frames[0]).all()


@pytest.mark.parametrize(
    ("height", "width", "num_frames"), [(64, 64, 17), (64, 96, 17), (96, 64, 33), (48, 80, 1)]
)
def test_a_batch_is_its_scenes(height: int, width: int, num_frames: int) -> None:
    rng = Random(0)
    scenes = [sample_scene(rng, "train", two_things=0.5) for _ in range(12)]
    batch = render_batch(scenes, height, width, num_frames)
    assert batch.shape == (12, 3, num_frames, height, width)
    assert batch.dtype == torch.float32
    assert batch.abs().max() <= 1
    for clip, scene in zip(batch, scenes, strict=True):
        np.testing.assert_array_equal(to_uint8(clip), render(scene, height, width, num_frames))
        for thing in scene.things:
            x, y = path(thing, height, width, num_frames)[0]
            pixel = to_uint8(clip)[0, int(y), int(x)]
            assert np.abs(pixel.astype(int) - COLOURS[thing.colour]).max() <= 1
            assert radius(thing, height, width) > 5


@pytest.mark.alone
def test_speed() -> None:
    """Training needs hundreds of thousands; 980 to 1260 a second were measured on one core."""
    rng = Random(0)
    scenes = [sample_scene(rng, "train") for _ in range(64)]
    render_batch(scenes[:8], 64, 64, 17)
    start = time.perf_counter()
    for i in range(0, 64, 8):
        render_batch(scenes[i : i + 8], 64, 64, 17)
    assert 64 / (time.perf_counter() - start) > 150


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_draws_the_same_pictures() -> None:
    rng = Random(0)
    scenes = [sample_scene(rng, "train", two_things=0.5) for _ in range(16)]
    on_gpu = render_batch(scenes, 64, 96, 17, device="cuda")
    assert (on_gpu.cpu() - render_batch(scenes, 64, 96, 17)).abs().max() < 1e-4
