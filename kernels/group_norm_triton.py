"""`group_norm_silu_pad_reference` in channels_last_3d: x is read twice and the padded output written once.

Moments of chunks of positions, merged per group by a second kernel in a fixed order, then the normalisation.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyvideo_rt.kernels.group_norm import EPS
from hyvideo_rt.kernels.upsample import upsampled_shape
from hyvideo_rt.kernels.upsample_triton import (
    TILE,
    check_pad,
    empty_channels_last,
    store_repeated,
    tile_rows,
)

# Two fp32 sums per element of a tile: with 2048 a thread has 55 registers and 9 programs fit on an SM, with
# 4096 it has 96 and 5 fit.
MOMENTS_TILE = TILE // 2
# 64 KiB of fp16: 272 programs at the VAE's smallest full-size activation, [1, 512, 17, 32, 32]; 256 bytes of
# moments are written for each.
CHUNK = 16 * MOMENTS_TILE
MERGED_AT_ONCE, MERGING_WARPS = 4096, 8  # 33,280 chunks of a full tile's largest activation: nine trips
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@triton.jit
def _chunk_moments_kernel(
    x_ptr, mean_ptr, squares_ptr, positions, chunk_positions,
    GROUPS: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    """Mean, and sum of squared differences from it, of each group of SIZE channels in a chunk of positions.

    Sums are of differences from the group's first value: a large mean would leave nothing of the variance.
    """
    chunk, sample = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    C: tl.constexpr = GROUPS * SIZE
    x_ptr += (sample * positions + chunk * chunk_positions) * C
    count = tl.minimum(positions - chunk * chunk_positions, chunk_positions).to(tl.int32)

    column = tl.arange(0, BLOCK_GROUPS * BLOCK_SIZE)
    if SIZE == BLOCK_SIZE:
        channel = column
        inside = column < C
    else:
        channel = column // BLOCK_SIZE * SIZE + column % BLOCK_SIZE
        inside = (column // BLOCK_SIZE < GROUPS) & (column % BLOCK_SIZE < SIZE)
    origin = tl.load(x_ptr + channel // SIZE * SIZE, mask=inside, other=0.0).to(tl.float32)

    total = tl.zeros([ROWS, BLOCK_GROUPS * BLOCK_SIZE], tl.float32)
    squares = tl.zeros([ROWS, BLOCK_GROUPS * BLOCK_SIZE], tl.float32)
    for start in range(0, count, ROWS):
        row = (start + tl.arange(0, ROWS))[:, None]
        x = tl.load(x_ptr + tl.minimum(row, count - 1) * C + channel[None], mask=inside[None])
        x = tl.where((row < count) & inside[None], x.to(tl.float32) - origin[None], 0.0)
        total += x
        squares += x * x

    group = tl.arange(0, BLOCK_GROUPS)
    total = tl.sum(tl.reshape(tl.sum(total, axis=0), [BLOCK_GROUPS, BLOCK_SIZE]), axis=1)
    squares = tl.sum(tl.reshape(tl.sum(squares, axis=0), [BLOCK_GROUPS, BLOCK_SIZE]), axis=1)
    origin = tl.load(x_ptr + group * SIZE, mask=group < GROUPS, other=0.0).to(tl.float32)
    offset = (sample * GROUPS + group) * tl.num_programs(0) + chunk
    difference = total / (count * SIZE)
    tl.store(mean_ptr + offset, origin + difference, mask=group < GROUPS)
    tl.store(squares_ptr + offset, squares - total * difference, mask=group < GROUPS)


@triton.jit
def _merge_moments_kernel(
    chunk_mean_ptr, chunk_squares_ptr, mean_ptr, rstd_ptr, positions, chunk_positions, chunks, size, eps,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Chan's merge: squares about the common mean are those about each chunk's, plus those between them."""
    group = tl.program_id(0).to(tl.int64)
    chunk_mean_ptr += group * chunks
    chunk_squares_ptr += group * chunks
    origin = tl.load(chunk_mean_ptr)
    total = tl.zeros([BLOCK], tl.float32)
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, chunks, BLOCK):
        chunk = start + tl.arange(0, BLOCK)
        mask = chunk < chunks
        left = positions - chunk.to(tl.int64) * chunk_positions
        count = tl.minimum(left, chunk_positions).to(tl.float32) * size
        mean = tl.load(chunk_mean_ptr + chunk, mask=mask, other=0.0)
        difference = tl.where(mask, mean - origin, 0.0)
        total += count * difference
        squares += count * difference * difference + tl.load(chunk_squares_ptr + chunk, mask=mask, other=0.0)
    count = 1.0 * positions * size
    difference = tl.sum(total) / count
    variance = tl.sum(squares) / count - difference * difference
    tl.store(mean_ptr + group, origin + difference)
    tl.store(rstd_ptr + group, 1 / tl.sqrt(tl.maximum(variance, 0.0) + eps))


@triton.jit
def _normalise_silu_pad_kernel(
    x_ptr, weight_ptr, bias_ptr, mean_ptr, rstd_ptr, out_ptr,
    T, H, W, T_out, H_out, W_out, left, top, front, tiles,
    GROUPS: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One program per tile of a line of x."""
    line, start = tl.program_id(0) // tiles, tl.program_id(0) % tiles * ROWS
    C: tl.constexpr = GROUPS * SIZE
    w, channel = start + tl.arange(0, ROWS), tl.arange(0, BLOCK_C)
    inside = channel < C
    x_ptr += line.to(tl.int64) * W * C
    x = tl.load(x_ptr + tl.minimum(w, W - 1)[:, None] * C + channel[None], mask=inside[None])

    group = line // H // T * GROUPS + channel // SIZE
    mean = tl.load(mean_ptr + group, mask=inside, other=0.0)[None]
    scale = tl.load(rstd_ptr + group, mask=inside, other=0.0)
    scale = (scale * tl.load(weight_ptr + channel, mask=inside, other=0.0).to(tl.float32))[None]
    bias = tl.load(bias_ptr + channel, mask=inside, other=0.0).to(tl.float32)[None]
    y = ((x.to(tl.float32) - mean) * scale + bias).to(x.dtype).to(tl.float32)
    out = (y / (1 + tl.exp(-y))).to(x.dtype)
    store_repeated(
        out, out_ptr, line, start, T, H, W, T_out, H_out, W_out, left, top, front, 1, 1, 1, C, ROWS, BLOCK_C
    )


@torch.library.custom_op("hyvideo_rt::group_norm_silu_pad", mutates_args=())
def group_norm_silu_pad(x: Tensor, weight: Tensor, bias: Tensor, groups: int, pad: Sequence[int]) -> Tensor:
    """x [B, C, T, H, W] fp32, fp16 or bf16, best in channels_last_3d: other layouts are copied into it first.

    weight, bias [C] of any of these dtypes; pad (W, W, H, H, T, T); out padded, in channels_last_3d.
    """
    _check(x, weight, bias, groups)
    check_pad(pad)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    mean, rstd = _moments(x, groups)
    out = empty_channels_last(x, upsampled_shape(x.shape, (1, 1, 1), pad))
    (_, C, T, H, W), (B, _, T_out, H_out, W_out) = x.shape, out.shape
    block = triton.next_power_of_2(C)
    rows = tile_rows(TILE, block, W)
    tiles = triton.cdiv(W, rows)
    _normalise_silu_pad_kernel[(B * T * H * tiles,)](
        x, weight, bias, mean, rstd, out, T, H, W, T_out, H_out, W_out, pad[0], pad[2], pad[4], tiles,
        GROUPS=groups, SIZE=C // groups, ROWS=rows, BLOCK_C=block,
    )  # fmt: skip
    return out


@group_norm_silu_pad.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, groups: int, pad: Sequence[int]) -> Tensor:
    return empty_channels_last(x, upsampled_shape(x.shape, (1, 1, 1), pad))


def _moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation of each group, [B, groups] fp32; x in channels_last_3d."""
    size, positions = x.shape[1] // groups, x.shape[2:].numel()
    block_groups, block_size = triton.next_power_of_2(groups), triton.next_power_of_2(size)
    chunk_positions = max(1, CHUNK // (block_groups * block_size))
    chunks = triton.cdiv(positions, chunk_positions)
    chunk_mean, chunk_squares = x.new_empty((2, x.shape[0], groups, chunks), dtype=torch.float32)
    mean, rstd = x.new_empty((2, x.shape[0], groups), dtype=torch.float32)
    _chunk_moments_kernel[(chunks, x.shape[0])](
        x, chunk_mean, chunk_squares, positions, chunk_positions,
        GROUPS=groups, SIZE=size, ROWS=tile_rows(MOMENTS_TILE, block_groups * block_size, positions),
        BLOCK_GROUPS=block_groups, BLOCK_SIZE=block_size,
    )  # fmt: skip
    _merge_moments_kernel[(x.shape[0] * groups,)](
        chunk_mean, chunk_squares, mean, rstd, positions, chunk_positions, chunks, size, EPS,
        BLOCK=MERGED_AT_ONCE, num_warps=MERGING_WARPS,
    )  # fmt: skip
    return mean, rstd


def _check(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> None:
    if x.ndim != 5:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected [B, C, T, H, W]")
    if x.dtype not in DTYPES:
        raise ValueError(f"x is {x.dtype}, expected one of {DTYPES}")
    channels = x.shape[1]
    if groups < 1 or channels % groups:
        raise ValueError(f"x has {channels} channels, expected a multiple of {groups} groups")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter.shape != (channels,) or not parameter.is_contiguous():
            layout = f"shape {tuple(parameter.shape)} and stride {parameter.stride()}"
            raise ValueError(f"{name} has {layout}, expected [{channels}], contiguous")
