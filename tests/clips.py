"""Synthetic clips, and reading videos back."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import av
import numpy as np

from hyvideo_rt.video import (
    Frames,
)

NOON = datetime(2025, 1, 31, 12, 0, 0)
METADATA: dict[str, str | int | float] = {
    "prompt": "猫が歩く, кот, 🐈\nsecond line",
    "seed": 2**63,
    "steps": 50,
    "guidance": 6.0,
    "model": "tiny",
}


def smooth_clip(num_frames: int = 17, height: int = 64, width: int = 96) -> Frames:
    """Slow waves of light and colour, without sharp edges: what chroma subsampling must not hurt."""
    f, y, x = np.meshgrid(np.arange(num_frames), np.arange(height), np.arange(width), indexing="ij")
    waves = [np.sin(x / 19 + f / 6 + phase) * np.cos(y / 23 - phase) for phase in (0.0, 0.7, 1.4)]
    return (127.5 + 110 * np.stack(waves, axis=-1)).astype(np.uint8)


def noise_clip(num_frames: int, size: int = 64) -> Frames:
    return np.random.default_rng(0).integers(0, 256, (num_frames, size, size, 3), dtype=np.uint8)


def decode(path: Path) -> Frames:
    with av.open(str(path)) as container:
        return np.stack([rgb(frame) for frame in container.decode(video=0)])


def rgb(frame: av.VideoFrame) -> Frames:
    """The picture by BT.709's own formula, limited range, each chroma sample for its four pixels."""
    planes = frame.to_ndarray().astype(float)
    height, width = frame.height, frame.width
    luma = (planes[:height] - 16) / 219
    chroma = (planes[height:].reshape(2, height // 2, width // 2) - 128) / 224
    blue_difference, red_difference = chroma.repeat(2, axis=1).repeat(2, axis=2)
    red, blue = luma + 1.5748 * red_difference, luma + 1.8556 * blue_difference
    green = (luma - 0.2126 * red - 0.0722 * blue) / 0.7152
    return (255 * np.stack([red, green, blue], axis=-1)).round().clip(0, 255).astype(np.uint8)


def psnr(a: Frames, b: Frames) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """The folder's names and bytes are the same after the block, hidden files included."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    yield
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
