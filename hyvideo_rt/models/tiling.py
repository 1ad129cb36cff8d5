"""Running the VAE tile by tile, with upstream's tile sizes, order and blends.

A tile's GroupNorm sees that tile only, so the tiling is part of the result: other tiles, other pixels.
Sizes of a tile: 256 pixels and 64 frames (32 and 16 as latents), a quarter of it shared with its neighbour.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hyvideo_rt.config import VAEConfig

TileFn = Callable[[Tensor], Tensor]
OnTile = Callable[[int, int], None]  # tiles done, tiles in all
SPACE, TIME = 8, 4  # pixels per latent


@dataclass(frozen=True)
class Axis:
    """How one axis is cut: input `tile` and `stride`, and on the output side the `blend` and the `keep`."""

    tile: int
    stride: int
    blend: int
    keep: int

    def starts(self, size: int) -> range:
        return range(0, size, self.stride)


@dataclass(frozen=True)
class Tiling:
    """The cuts of one direction (encode or decode); None for an axis group that is not cut."""

    space: Axis | None
    time: Axis | None

    @classmethod
    def decode(cls, config: VAEConfig, *, space: bool = True, time: bool = True) -> "Tiling":
        return cls(
            _axis(config.sample_size // SPACE, config.sample_size, config.tile_overlap) if space else None,
            _axis(config.sample_tsize // TIME, config.sample_tsize, config.tile_overlap) if time else None,
        )

    @classmethod
    def encode(cls, config: VAEConfig, *, space: bool = True, time: bool = True) -> "Tiling":
        return cls(
            _axis(config.sample_size, config.sample_size // SPACE, config.tile_overlap) if space else None,
            _axis(config.sample_tsize, config.sample_tsize // TIME, config.tile_overlap) if time else None,
        )

    def time_starts(self, frames: int) -> range:
        """First frames of the tiles; one that would hold a single frame adds nothing to the output."""
        assert self.time is not None
        return self.time.starts(frames - 1)

    def tile_shapes(self, size: tuple[int, int, int]) -> list[tuple[int, int, int]]:
        """(T, H, W) of every tile of an input of `size`, in the order they run."""
        frames, height, width = size
        if self.time is None or frames <= self.time.tile:
            times = [frames]
        else:
            times = [min(self.time.tile + 1, frames - start) for start in self.time_starts(frames)]
        if self.space is None or max(height, width) <= self.space.tile:
            return [(t, height, width) for t in times]
        rows = [min(self.space.tile, height - y) for y in self.space.starts(height)]
        columns = [min(self.space.tile, width - x) for x in self.space.starts(width)]
        return [(t, h, w) for t in times for h in rows for w in columns]


def run_tiled(fn: TileFn, x: Tensor, tiling: Tiling, on_tile: OnTile | None = None) -> Tensor:
    """`fn` over the whole of x [B, C, T, H, W], in tiles."""
    return torch.cat(list(stream_tiled(fn, x, tiling, on_tile)), dim=2)


def stream_tiled(fn: TileFn, x: Tensor, tiling: Tiling, on_tile: OnTile | None = None) -> Iterator[Tensor]:
    """Like `run_tiled`, but yields the output in chunks of frames, in order, as soon as each is final."""
    fn = _counted(fn, len(tiling.tile_shapes((x.shape[2], x.shape[3], x.shape[4]))), on_tile)
    cut = tiling.time
    if cut is None or x.shape[2] <= cut.tile:
        yield _spatial(fn, x, tiling.space)
        return
    previous: Tensor | None = None
    for start in tiling.time_starts(x.shape[2]):
        tile = _spatial(fn, x[:, :, start : start + cut.tile + 1], tiling.space)
        if previous is not None:
            tile = _blend(previous, tile[:, :, 1:], cut.blend, dim=2)
        yield tile[:, :, : cut.keep + (previous is None)]
        previous = tile


def _spatial(fn: TileFn, x: Tensor, cut: Axis | None) -> Tensor:
    """Neighbours are blended with the tile above, then with the one on the left, both already blended."""
    height, width = x.shape[-2:]
    if cut is None or max(height, width) <= cut.tile:
        return fn(x)
    rows: list[Tensor] = []
    above: list[Tensor] = []
    for y in cut.starts(height):
        row: list[Tensor] = []
        for i, left in enumerate(cut.starts(width)):
            tile = fn(x[..., y : y + cut.tile, left : left + cut.tile])
            if above:
                tile = _blend(above[i], tile, cut.blend, dim=3)
            if row:
                tile = _blend(row[-1], tile, cut.blend, dim=4)
            row.append(tile)
        rows.append(torch.cat([tile[..., : cut.keep, : cut.keep] for tile in row], dim=4))
        above = row
    return torch.cat(rows, dim=3)


def _blend(before: Tensor, after: Tensor, extent: int, dim: int) -> Tensor:
    """`after`, its first values faded in from the last ones of `before`, linearly along `dim`, in place."""
    extent = min(before.shape[dim], after.shape[dim], extent)
    if extent == 0:
        return after
    shape = [1] * after.ndim
    shape[dim] = extent
    weight = (
        (torch.arange(extent, device=after.device, dtype=torch.float32) / extent).to(after.dtype).view(shape)
    )
    tail = before.narrow(dim, before.shape[dim] - extent, extent)
    head = after.narrow(dim, 0, extent)
    head.mul_(weight).add_(tail * (1 - weight))
    return after


def _axis(tile: int, out_tile: int, overlap: float) -> Axis:
    blend = int(out_tile * overlap)
    return Axis(tile=tile, stride=int(tile * (1 - overlap)), blend=blend, keep=out_tile - blend)


def _counted(fn: TileFn, total: int, on_tile: OnTile | None) -> TileFn:
    if on_tile is None:
        return fn
    done = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal done
        out = fn(x)
        done += 1
        on_tile(done, total)
        return out

    return counted
