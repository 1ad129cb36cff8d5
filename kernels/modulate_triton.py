"""`kernels/modulate.py` in Triton: each input is read once, each output written once.

A program owns one row and holds all of it in registers, so the variance is summed from differences to the
mean without a second read. Inputs may have any strides but the last, outputs are contiguous.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyvideo_rt.kernels.modulate import EPS

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# 32 elements a thread: four 16-byte loads of bf16 in flight, and registers for a dozen rows on one SM.
ELEMENTS_PER_WARP = 1024


@triton.jit
def _layer_norm_modulate_kernel(
    x_ptr,
    shift_ptr,
    scale_ptr,
    out_ptr,
    x_batch,
    x_row,
    shift_batch,
    scale_batch,
    dim: tl.constexpr,
    block: tl.constexpr,
    eps: tl.constexpr,
):
    row, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, block)
    inside = columns < dim
    # Rows pass through L1 and leave it first: shift and scale stay there for the next row.
    x_at = x_ptr + batch * x_batch + row * x_row + columns
    x = tl.load(x_at, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    normed = _layer_norm(x, inside, dim, eps)
    out = _modulate(normed, shift_ptr + batch * shift_batch, scale_ptr + batch * scale_batch, columns, inside)
    out_at = out_ptr + (batch * tl.num_programs(0) + row) * dim + columns
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gate_residual_kernel(
    x_ptr,
    gate_ptr,
    y_ptr,
    out_ptr,
    x_batch,
    x_row,
    gate_batch,
    y_batch,
    y_row,
    dim: tl.constexpr,
    block: tl.constexpr,
):
    row, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, block)
    inside = columns < dim
    x_at = x_ptr + batch * x_batch + row * x_row + columns
    y_at = y_ptr + batch * y_batch + row * y_row + columns
    total = _gated_sum(x_at, gate_ptr + batch * gate_batch + columns, y_at, inside)
    tl.store(out_ptr + (batch * tl.num_programs(0) + row) * dim + columns, total, mask=inside)


@triton.jit
def _gate_residual_norm_kernel(
    x_ptr,
    gate_ptr,
    y_ptr,
    shift_ptr,
    scale_ptr,
    total_ptr,
    out_ptr,
    x_batch,
    x_row,
    gate_batch,
    y_batch,
    y_row,
    shift_batch,
    scale_batch,
    dim: tl.constexpr,
    block: tl.constexpr,
    eps: tl.constexpr,
):
    row, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, block)
    inside = columns < dim
    x_at = x_ptr + batch * x_batch + row * x_row + columns
    y_at = y_ptr + batch * y_batch + row * y_row + columns
    out_at = (batch * tl.num_programs(0) + row) * dim + columns
    total = _gated_sum(x_at, gate_ptr + batch * gate_batch + columns, y_at, inside)
    tl.store(total_ptr + out_at, total, mask=inside)
    normed = _layer_norm(total.to(tl.float32), inside, dim, eps)
    out = _modulate(normed, shift_ptr + batch * shift_batch, scale_ptr + batch * scale_batch, columns, inside)
    tl.store(out_ptr + out_at, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gated_sum(x_at, gate_at, y_at, inside):
    """x + gate * y, summed in fp32 and rounded to x's dtype; zero outside."""
    x = tl.load(x_at, mask=inside, other=0.0, eviction_policy="evict_first")
    y = tl.load(y_at, mask=inside, other=0.0, eviction_policy="evict_first")
    gate = tl.load(gate_at, mask=inside, other=0.0)
    return (x.to(tl.float32) + gate.to(tl.float32) * y.to(tl.float32)).to(x.dtype)


@triton.jit
def _layer_norm(x, inside, dim: tl.constexpr, eps: tl.constexpr):
    mean = tl.sum(x, axis=0) / dim
    centred = tl.where(inside, x - mean, 0.0)
    return centred * tl.rsqrt(tl.sum(centred * centred, axis=0) / dim + eps)


@triton.jit
def _modulate(normed, shift_ptr, scale_ptr, columns, inside):
    shift = tl.load(shift_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    return normed * (1 + scale) + shift


@torch.library.custom_op("hyvideo_rt::layer_norm_modulate", mutates_args=())
def layer_norm_modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x [B, L, D] fp32, fp16 or bf16; shift, scale [B, D] like x; the last dimension of all contiguous."""
    _expect_rows("x", x)
    b, tokens, d = x.shape
    for name, vector in (("shift", shift), ("scale", scale)):
        expect(name, vector, (b, d), x.dtype)
    out = x.new_empty(x.shape)
    block = triton.next_power_of_2(d)
    _layer_norm_modulate_kernel[(tokens, b)](
        x,
        shift,
        scale,
        out,
        x.stride(0),
        x.stride(1),
        shift.stride(0),
        scale.stride(0),
        dim=d,
        block=block,
        eps=EPS,
        num_warps=warps(block),
    )
    return out


@layer_norm_modulate.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("hyvideo_rt::gate_residual", mutates_args=())
def gate_residual(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """x, y [B, L, D] fp32, fp16 or bf16; gate [B, D] like x; the last dimension of all contiguous."""
    _expect_rows("x", x)
    b, tokens, d = x.shape
    expect("gate", gate, (b, d), x.dtype)
    expect("y", y, x.shape, x.dtype)
    out = x.new_empty(x.shape)
    block = triton.next_power_of_2(d)
    _gate_residual_kernel[(tokens, b)](
        x,
        gate,
        y,
        out,
        x.stride(0),
        x.stride(1),
        gate.stride(0),
        y.stride(0),
        y.stride(1),
        dim=d,
        block=block,
        num_warps=warps(block),
    )
    return out


@gate_residual.register_fake
def _(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("hyvideo_rt::gate_residual_norm", mutates_args=())
def gate_residual_norm(
    x: Tensor, gate: Tensor, y: Tensor, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """x + gate * y and the adaLN of it, both like x.

    x, y [B, L, D] fp32, fp16 or bf16; gate, shift, scale [B, D] like x; the last dimension of all contiguous.
    """
    _expect_rows("x", x)
    b, tokens, d = x.shape
    for name, vector in (("gate", gate), ("shift", shift), ("scale", scale)):
        expect(name, vector, (b, d), x.dtype)
    expect("y", y, x.shape, x.dtype)
    total, out = x.new_empty(x.shape), x.new_empty(x.shape)
    block = triton.next_power_of_2(d)
    _gate_residual_norm_kernel[(tokens, b)](
        x,
        gate,
        y,
        shift,
        scale,
        total,
        out,
        x.stride(0),
        x.stride(1),
        gate.stride(0),
        y.stride(0),
        y.stride(1),
        shift.stride(0),
        scale.stride(0),
        dim=d,
        block=block,
        eps=EPS,
        num_warps=warps(block),
    )
    return total, out


@gate_residual_norm.register_fake
def _(x: Tensor, gate: Tensor, y: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


def expect(name: str, tensor: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    """The shape and dtype that are meant, and a contiguous last dimension."""
    if tensor.dtype != dtype or list(tensor.shape) != list(shape):
        got = f"{tensor.dtype} {list(tensor.shape)}"
        raise ValueError(f"{name} is {got}, expected {dtype} {list(shape)}")
    if tensor.stride(-1) != 1:
        raise ValueError(f"{name} has stride {tensor.stride(-1)} in its last dimension, expected 1")


def expect_dtype(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise ValueError(f"{name} is {tensor.dtype}, expected one of {', '.join(map(str, DTYPES))}")


def warps(elements: int) -> int:
    """For so many elements in a program."""
    return max(1, min(8, elements // ELEMENTS_PER_WARP))


def _expect_rows(name: str, x: Tensor) -> None:
    if x.ndim != 3:
        raise ValueError(f"{name} is {list(x.shape)}, expected [B, L, D]")
    expect_dtype(name, x)
    expect(name, x, x.shape, x.dtype)
