"""`upsample_pad_reference` in channels_last_3d: a pixel's C channels are one run of memory.

Every input pixel is read once and written to all its places. Programs of output pixels would read it four or
eight times, and count on the L2 cache.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyvideo_rt.kernels.upsample import upsampled_shape

# Elements of a program: 8 KiB of fp16, four 16-byte accesses per thread of 4 warps. With 48 registers 10
# programs fit on an SM and have that in flight; 3 TB/s at 700 ns need 16 KiB per SM. Loads are clamped to the
# line and not masked: ptxas issues masked ones between the arithmetic, one or two at a time.
TILE = 4096


@triton.jit
def _upsample_pad_kernel(
    x_ptr, out_ptr, T, H, W, T_out, H_out, W_out, left, top, front, tiles,
    TIME: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One program per tile of a line of the input."""
    line, start = tl.program_id(0) // tiles, tl.program_id(0) % tiles * ROWS
    w, channel = start + tl.arange(0, ROWS), tl.arange(0, BLOCK_C)
    x_ptr += line.to(tl.int64) * W * C
    values = tl.load(x_ptr + tl.minimum(w, W - 1)[:, None] * C + channel[None], mask=(channel < C)[None])
    store_repeated(
        values, out_ptr, line, start, T, H, W, T_out, H_out, W_out, left, top, front,
        TIME, HEIGHT, WIDTH, C, ROWS, BLOCK_C,
    )  # fmt: skip


@triton.jit
def store_repeated(
    values, out_ptr, line, start, T, H, W, T_out, H_out, W_out, left, top, front,
    TIME: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """values [ROWS, BLOCK_C], of the pixels from start in a line of the input, to all their places."""
    h, t, sample = line % H, line // H % T, (line // H // T).to(tl.int64)
    first_t = tl.where(t == 0, 0, front + TIME * (t - 1) + 1)
    end_t = tl.where(t == T - 1, T_out, front + TIME * t + 1)
    first_h = tl.where(h == 0, 0, top + HEIGHT * h)
    end_h = tl.where(h == H - 1, H_out, top + HEIGHT * (h + 1))
    end_left = tl.where(start == 0, left, 0)
    first_right = tl.where(start + ROWS >= W, left + WIDTH * W, W_out)

    w, channel = (start + tl.arange(0, ROWS))[:, None], tl.arange(0, BLOCK_C)[None]
    inside = (w < W) & (channel < C)
    for t_out in range(first_t, end_t):
        for h_out in range(first_h, end_h):
            line_ptr = out_ptr + ((sample * T_out + t_out) * H_out + h_out) * W_out * C
            for k in tl.static_range(WIDTH):
                tl.store(line_ptr + (left + WIDTH * w + k) * C + channel, values, mask=inside)
            for w_out in range(0, end_left):
                tl.store(line_ptr + (w_out + w) * C + channel, values, mask=inside & (w == 0))
            for w_out in range(first_right, W_out):
                tl.store(line_ptr + (w_out + w - W + 1) * C + channel, values, mask=inside & (w == W - 1))


@torch.library.custom_op("hyvideo_rt::upsample_pad", mutates_args=())
def upsample_pad(x: Tensor, factor: Sequence[int], pad: Sequence[int]) -> Tensor:
    """x [B, C, T, H, W] of any dtype, best in channels_last_3d: other layouts are copied into it first.

    factor (T, H, W), pad (W, W, H, H, T, T); out [B, C, T', H', W'] in channels_last_3d.
    """
    if x.ndim != 5:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected [B, C, T, H, W]")
    if len(factor) != 3 or not set(factor) <= {1, 2}:
        raise ValueError(f"factor is {tuple(factor)}, expected (T, H, W), each 1 or 2")
    check_pad(pad)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    out = empty_channels_last(x, upsampled_shape(x.shape, factor, pad))
    (_, C, T, H, W), (B, _, T_out, H_out, W_out) = x.shape, out.shape
    block = triton.next_power_of_2(C)
    rows = tile_rows(TILE, block, W)
    tiles = triton.cdiv(W, rows)
    _upsample_pad_kernel[(B * T * H * tiles,)](
        x, out, T, H, W, T_out, H_out, W_out, pad[0], pad[2], pad[4], tiles, *factor,
        C=C, ROWS=rows, BLOCK_C=block,
    )  # fmt: skip
    return out


@upsample_pad.register_fake
def _(x: Tensor, factor: Sequence[int], pad: Sequence[int]) -> Tensor:
    return empty_channels_last(x, upsampled_shape(x.shape, factor, pad))


def check_pad(pad: Sequence[int]) -> None:
    if len(pad) != 6 or min(pad) < 0:
        raise ValueError(f"pad is {tuple(pad)}, expected (W, W, H, H, T, T), none negative")


def empty_channels_last(x: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)


def tile_rows(tile: int, block: int, rows: int) -> int:
    """How many rows of `block` elements make a tile, a power of two; not many more than there are."""
    enough: int = triton.next_power_of_2(rows)
    return max(1, min(tile // block, enough))
