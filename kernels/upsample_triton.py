"""`upsample_pad_reference` as one gather in channels_last_3d: a pixel's C channels are one run of memory."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyvideo_rt.kernels.upsample import upsampled_shape

# Elements a program holds at a time: 8 KiB of fp16, four 16-byte accesses per thread of 4 warps, which all 16
# programs of an SM have in flight; 3 TB/s at 700 ns need 16 KiB per SM. Loads are clamped to the line and not
# masked: ptxas issues masked ones between the arithmetic, one or two at a time.
TILE = 4096


@triton.jit
def _upsample_pad_kernel(
    x_ptr, out_ptr, T, H, W, T_out, H_out, W_out, left, top, front,
    TIME: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One program per line of the output: all divisions but those by a factor are by line."""
    line = tl.program_id(0)
    h = tl.minimum(tl.maximum(line % H_out - top, 0), H * HEIGHT - 1) // HEIGHT
    t = tl.minimum(tl.maximum(line // H_out % T_out - front, 0), (T - 1) * TIME)
    t = (t + TIME - 1) // TIME
    sample = (line // H_out // T_out).to(tl.int64)
    x_ptr += ((sample * T + t) * H + h) * W * C
    out_ptr += line.to(tl.int64) * W_out * C
    channel = tl.arange(0, BLOCK_C)[None]
    for start in range(0, W_out, ROWS):
        w_out = (start + tl.arange(0, ROWS))[:, None]
        w = tl.minimum(tl.maximum(w_out - left, 0), W * WIDTH - 1) // WIDTH
        values = tl.load(x_ptr + w * C + channel, mask=channel < C)
        tl.store(out_ptr + w_out * C + channel, values, mask=(w_out < W_out) & (channel < C))


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
    _upsample_pad_kernel[(B * T_out * H_out,)](
        x, out, T, H, W, T_out, H_out, W_out, pad[0], pad[2], pad[4], *factor,
        C=C, ROWS=tile_rows(TILE, block, W_out), BLOCK_C=block,
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
