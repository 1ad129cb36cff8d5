"""Scenes to pixels, in batches, on the CPU or a GPU.

Shapes are signed distance functions in units of the radius, y down; a pixel's coverage is how far its centre
lies inside the edge, in pixels, clamped to [0, 1].
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiny.palette import BACKGROUNDS, COLOURS, RGB
from tiny.world import SHAPES, Scene, Thing, path, radius

STAR_TIP, STAR_NOTCH = 1.15, 0.45 * 1.15  # distance of the points and of the notches from the centre
SQUARE_HALF = 0.9
TRIANGLE_TIP = 1.15
AREAS: dict[str, float] = {  # in squared radii
    "circle": np.pi,
    "square": 4 * SQUARE_HALF**2,
    "triangle": 0.75 * 3**0.5 * TRIANGLE_TIP**2,
    "star": 5 * STAR_TIP * STAR_NOTCH * float(np.sin(np.pi / 5)),
}


def render(scene: Scene, height: int, width: int, num_frames: int) -> NDArray[np.uint8]:
    """One clip on the CPU, [F, H, W, 3]."""
    clip = render_batch([scene], height, width, num_frames)[0]
    return to_uint8(clip)


def to_uint8(clip: Tensor) -> NDArray[np.uint8]:
    """A clip [3, F, H, W] in [-1, 1], as the VAE holds it, to pixels [F, H, W, 3]."""
    pixels = ((clip.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 3, 0).cpu().numpy()


def render_batch(
    scenes: Sequence[Scene], height: int, width: int, num_frames: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Clips [B, 3, F, H, W], float32 in [-1, 1]."""
    background = _signed([BACKGROUNDS[scene.background] for scene in scenes], device)
    clips = background[:, :, None, None, None].repeat(1, 1, num_frames, height, width)
    for shape in SHAPES:
        for slot in range(2):
            rows = [i for i, scene in enumerate(scenes) if _has(scene, slot, shape)]
            if rows:
                _paint(clips, rows, [scenes[i].things[slot] for i in rows])
    return clips


def _has(scene: Scene, slot: int, shape: str) -> bool:
    return slot < len(scene.things) and scene.things[slot].shape == shape


def _signed(colours: list[RGB], device: torch.device | str) -> Tensor:
    return torch.tensor(colours, dtype=torch.float32, device=device) / 127.5 - 1


def _paint(clips: Tensor, rows: list[int], things: list[Thing]) -> None:
    """Blends things of one shape, one into each of the given rows of clips [B, 3, F, H, W], in place."""
    num_frames, height, width = clips.shape[2:]
    centres = np.stack([path(thing, height, width, num_frames) for thing in things])
    alpha = coverage(
        things[0].shape,
        torch.tensor(centres, dtype=torch.float32, device=clips.device),
        torch.tensor([[radius(thing, height, width)] for thing in things], device=clips.device),
        height,
        width,
    )
    colours = _signed([COLOURS[thing.colour] for thing in things], clips.device)
    clips[rows] = torch.lerp(clips[rows], colours[:, :, None, None, None], alpha[:, None])


def coverage(shape: str, centres: Tensor, radii: Tensor, height: int, width: int) -> Tensor:
    """How much of each pixel the shape covers, [..., H, W] in [0, 1].

    centres [..., 2] as (x, y) and radii [...] (broadcast against each other), float32, in pixels.
    """
    scale = radii[..., None, None]
    x = (_pixel_centres(width, radii) - centres[..., 0, None])[..., None, :] / scale
    y = (_pixel_centres(height, radii) - centres[..., 1, None])[..., :, None] / scale
    return (0.5 - _DISTANCES[shape](x, y) * scale).clamp(0, 1)


def _pixel_centres(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, dtype=like.dtype, device=like.device) + 0.5


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 1


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - SQUARE_HALF


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    """Upright and equilateral: the three edges lie half the tip's height from the centre."""
    sides = 0.75**0.5 * x.abs() - 0.5 * y
    return torch.maximum(sides, y) - TRIANGLE_TIP / 2


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Five points, one up: two reflections fold the plane onto a tenth of it, which has a single edge."""
    x, y = x.abs(), -y
    for side in (1, -1):
        normal_x, normal_y = side * np.cos(np.pi / 5), -np.sin(np.pi / 5)
        beyond = 2 * (normal_x * x + normal_y * y).clamp(min=0)
        x, y = x - normal_x * beyond, y - normal_y * beyond
    along = np.array([STAR_NOTCH * np.sin(np.pi / 5), STAR_NOTCH * np.cos(np.pi / 5) - STAR_TIP])
    along /= np.hypot(*along)
    across, up = float(-along[1]), float(along[0])
    return across * x.abs() + up * (y - STAR_TIP)


_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
}
