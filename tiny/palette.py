"""The named colours of the tiny world, and how far apart two colours look."""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (220, 40, 40),
    "green": (30, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 220, 40),
    "orange": (245, 135, 25),
    "purple": (140, 45, 170),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
}
BACKGROUNDS: dict[str, RGB] = {
    "white": (250, 250, 250),
    "black": (15, 15, 15),
    "grey": (128, 128, 128),
    "light blue": (150, 195, 235),
    "light green": (160, 220, 175),
    "pink": (245, 175, 195),
    "beige": (215, 195, 160),
    "lavender": (190, 170, 230),
}
MIN_CONTRAST = 25.0  # CIELAB units between a thing and its background

_LINEAR_TO_XYZ = np.array(  # sRGB primaries, each row divided by the D65 white point
    [
        [0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883],
    ]
)


def lab(rgb: ArrayLike) -> NDArray[np.float64]:
    """sRGB [..., 3] in 0..255 to CIELAB [..., 3], where Euclidean distance is about what the eye sees."""
    encoded = np.asarray(rgb, np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _LINEAR_TO_XYZ.T
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def contrast(one: ArrayLike, other: ArrayLike) -> float:
    """CIELAB distance of two sRGB colours; 0 is equal, black to white is 100."""
    return float(np.linalg.norm(lab(one) - lab(other)))


def nearest(rgb: ArrayLike, palette: dict[str, RGB]) -> tuple[str, float]:
    """The palette's name that looks most like the colour, and its CIELAB distance."""
    distances = np.linalg.norm(lab(list(palette.values())) - lab(rgb), axis=-1)
    return list(palette)[distances.argmin()], float(distances.min())


@cache
def backgrounds_for(colours: tuple[str, ...]) -> tuple[str, ...]:
    """The backgrounds from which things of all these colours stand out."""
    return tuple(
        name
        for name, rgb in BACKGROUNDS.items()
        if all(contrast(COLOURS[colour], rgb) >= MIN_CONTRAST for colour in colours)
    )
