"""The same as Triton kernels: the producer, the row's largest and the quantised row in one read of memory.

A program has one row in registers, as 2^n elements and the rest: 3072 = 2048 + 1024 and 12288 = 8192 + 4096
leave no lane idle, where one block of the next power of two would idle a quarter of them.

x, attn, mlp may be views whose last dimension is contiguous; so may shift and scale, whose rows (one for each
sample) may be any distance apart.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyvideo_rt.kernels.fp8 import E4M3, E4M3_MAX, SMALLEST_ROW
from hyvideo_rt.kernels.modulate import EPS
from hyvideo_rt.kernels.quantise import Rows

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
WIDEST = 16384
# 48 to 64 values in a thread, six or more loads of 16 bytes. For sm_90 that takes 103 registers at most and
# no spills: an SM holds 12 or more rows of 3072, whose two warps reduce cheaply, and two of 15360.
ELEMENTS_PER_WARP = 2048

_SMALLEST = tl.constexpr(SMALLEST_ROW)
_STEP = tl.constexpr(1 / E4M3_MAX)
_EPS = tl.constexpr(EPS)
# tanh GELU is x * sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3); here -2u / ln 2 = x (A + B x^2)
_GELU_A = tl.constexpr(-2.302208198144325)
_GELU_B = tl.constexpr(-0.10294323958002849)


@triton.jit
def _row_offset(program, tokens, batch_stride, stride):
    return (program // tokens).to(tl.int64) * batch_stride + (program % tokens).to(tl.int64) * stride


@triton.jit
def _rounded_gelu(x, dtype: tl.constexpr):
    return (x / (1.0 + tl.exp2(x * (_GELU_A + _GELU_B * x * x)))).to(dtype).to(tl.float32)


@triton.jit
def _largest(x):
    return tl.max(tl.abs(x), 0)


@triton.jit
def _scale_of(largest):
    return tl.maximum(largest, _SMALLEST) * _STEP


@triton.jit
def _divide(x, scale, inverse):
    """x / scale in E4M3. The remainder corrects ``x * inverse``: division's own rounding in three operations.

    Only the scale's rounding can lift it above 448, and that rounds to 448 again: no clamp. NaN stays NaN.
    Zero loses its sign.
    """
    quotient = x * inverse
    return tl.fma(tl.fma(-quotient, scale, x), inverse, quotient).to(tl.float8e4nv)


@triton.jit
def _quantise_rows_kernel(
    x_ptr,
    values_ptr,
    scale_ptr,
    tokens,
    width,
    batch_stride,
    stride,
    GELU: tl.constexpr,
    FIRST: tl.constexpr,
    REST: tl.constexpr,
):
    program = tl.program_id(0)
    x_ptr += _row_offset(program, tokens, batch_stride, stride)
    values_ptr += program.to(tl.int64) * width
    first, rest = tl.arange(0, FIRST), FIRST + tl.arange(0, REST)
    inside = rest < width
    x = tl.load(x_ptr + first).to(tl.float32)
    y = tl.load(x_ptr + rest, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        x = _rounded_gelu(x, x_ptr.dtype.element_ty)
        y = _rounded_gelu(y, x_ptr.dtype.element_ty)
    scale = _scale_of(tl.maximum(_largest(x), _largest(y)))
    inverse = tl.div_rn(1.0, scale)
    tl.store(scale_ptr + program, scale)
    tl.store(values_ptr + first, _divide(x, scale, inverse))
    tl.store(values_ptr + rest, _divide(y, scale, inverse), mask=inside)


@triton.jit
def _gelu_beside_rows_kernel(
    attn_ptr,
    mlp_ptr,
    values_ptr,
    scale_ptr,
    tokens,
    attn_width,
    mlp_width,
    attn_batch_stride,
    attn_stride,
    mlp_batch_stride,
    mlp_stride,
    ATTN: tl.constexpr,
    FIRST: tl.constexpr,
    REST: tl.constexpr,
):
    program = tl.program_id(0)
    attn_ptr += _row_offset(program, tokens, attn_batch_stride, attn_stride)
    mlp_ptr += _row_offset(program, tokens, mlp_batch_stride, mlp_stride)
    values_ptr += program.to(tl.int64) * (attn_width + mlp_width)
    beside, first, rest = tl.arange(0, ATTN), tl.arange(0, FIRST), FIRST + tl.arange(0, REST)
    in_attn, inside = beside < attn_width, rest < mlp_width
    attn = tl.load(attn_ptr + beside, mask=in_attn, other=0.0).to(tl.float32)
    x = tl.load(mlp_ptr + first).to(tl.float32)
    y = tl.load(mlp_ptr + rest, mask=inside, other=0.0).to(tl.float32)
    x = _rounded_gelu(x, mlp_ptr.dtype.element_ty)
    y = _rounded_gelu(y, mlp_ptr.dtype.element_ty)
    scale = _scale_of(tl.maximum(_largest(attn), tl.maximum(_largest(x), _largest(y))))
    inverse = tl.div_rn(1.0, scale)
    tl.store(scale_ptr + program, scale)
    tl.store(values_ptr + beside, _divide(attn, scale, inverse), mask=in_attn)
    values_ptr += attn_width
    tl.store(values_ptr + first, _divide(x, scale, inverse))
    tl.store(values_ptr + rest, _divide(y, scale, inverse), mask=inside)


@triton.jit
def _layer_norm_modulate_rows_kernel(
    x_ptr,
    shift_ptr,
    scale_ptr,
    values_ptr,
    scales_ptr,
    tokens,
    width,
    batch_stride,
    stride,
    shift_stride,
    scale_stride,
    FIRST: tl.constexpr,
    REST: tl.constexpr,
):
    program = tl.program_id(0)
    x_ptr += _row_offset(program, tokens, batch_stride, stride)
    shift_ptr += (program // tokens).to(tl.int64) * shift_stride
    scale_ptr += (program // tokens).to(tl.int64) * scale_stride
    values_ptr += program.to(tl.int64) * width
    first, rest = tl.arange(0, FIRST), FIRST + tl.arange(0, REST)
    inside = rest < width
    x = tl.load(x_ptr + first, eviction_policy="evict_first").to(tl.float32)
    y = tl.load(x_ptr + rest, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    mean = (tl.sum(x, 0) + tl.sum(y, 0)) / width
    x -= mean
    y = tl.where(inside, y - mean, 0.0)
    inverse_std = tl.rsqrt((tl.sum(x * x, 0) + tl.sum(y * y, 0)) / width + _EPS)
    x = _modulate(x * inverse_std, shift_ptr + first, scale_ptr + first, first >= 0, x_ptr.dtype.element_ty)
    y = _modulate(y * inverse_std, shift_ptr + rest, scale_ptr + rest, inside, x_ptr.dtype.element_ty)
    scale = _scale_of(tl.maximum(_largest(x), _largest(y)))
    inverse = tl.div_rn(1.0, scale)
    tl.store(scales_ptr + program, scale)
    tl.store(values_ptr + first, _divide(x, scale, inverse))
    tl.store(values_ptr + rest, _divide(y, scale, inverse), mask=inside)


@triton.jit
def _modulate(normed, shift_ptrs, scale_ptrs, inside, dtype: tl.constexpr):
    """All programs of a sample read the same shift and scale: they stay in L1, which x passes through."""
    shift = tl.load(shift_ptrs, mask=inside, other=0.0, eviction_policy="evict_last").to(tl.float32)
    scale = tl.load(scale_ptrs, mask=inside, other=0.0, eviction_policy="evict_last").to(tl.float32)
    return tl.fma(normed, 1.0 + scale, shift).to(dtype).to(tl.float32)


@triton.jit
def _largest_of_rows_kernel(
    x_ptr, largest_ptr, tokens, width, batch_stride, stride, FIRST: tl.constexpr, REST: tl.constexpr
):
    program = tl.program_id(0)
    x_ptr += _row_offset(program, tokens, batch_stride, stride)
    first, rest = tl.arange(0, FIRST), FIRST + tl.arange(0, REST)
    x = tl.load(x_ptr + first).to(tl.float32)
    y = tl.load(x_ptr + rest, mask=rest < width, other=0.0).to(tl.float32)
    tl.store(largest_ptr + program, tl.maximum(_largest(x), _largest(y)))


@triton.jit
def _divide_rows_kernel(
    x_ptr, scale_ptr, values_ptr, tokens, width, batch_stride, stride, FIRST: tl.constexpr, REST: tl.constexpr
):
    program = tl.program_id(0)
    x_ptr += _row_offset(program, tokens, batch_stride, stride)
    values_ptr += program.to(tl.int64) * width
    first, rest = tl.arange(0, FIRST), FIRST + tl.arange(0, REST)
    inside = rest < width
    scale = tl.load(scale_ptr)
    inverse = tl.div_rn(1.0, scale)
    x = tl.load(x_ptr + first).to(tl.float32)
    y = tl.load(x_ptr + rest, mask=inside, other=0.0).to(tl.float32)
    tl.store(values_ptr + first, _divide(x, scale, inverse))
    tl.store(values_ptr + rest, _divide(y, scale, inverse), mask=inside)


def quantise_rows(x: Tensor) -> Rows:
    """x [B, L, K] with a scale for each row."""
    return Rows(*_quantise_rows(x))


def gelu_rows(x: Tensor) -> Rows:
    """tanh GELU of x [B, L, K]."""
    return Rows(*_gelu_rows(x))


def gelu_beside_rows(attn: Tensor, mlp: Tensor) -> Rows:
    """``[attn ; gelu(mlp)]`` of attn [B, L, D] and mlp [B, L, M]; values [B, L, D + M]."""
    return Rows(*_gelu_beside_rows(attn, mlp))


def layer_norm_modulate_rows(x: Tensor, shift: Tensor, scale: Tensor) -> Rows:
    """``layer_norm(x) * (1 + scale) + shift`` of x [B, L, K] and shift, scale [B, K]."""
    return Rows(*_layer_norm_modulate_rows(x, shift, scale))


def quantise_tensor(x: Tensor) -> Rows:
    """x [B, L, K] with one scale [1, 1, 1]. Reads x twice: the scale is known only after the last row."""
    return Rows(*_quantise_tensor(x))


@torch.library.custom_op("hyvideo_rt::quantise_rows", mutates_args=())
def _quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    return _launch_rows(x, gelu=False)


@torch.library.custom_op("hyvideo_rt::gelu_rows", mutates_args=())
def _gelu_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    return _launch_rows(x, gelu=True)


@torch.library.custom_op("hyvideo_rt::gelu_beside_rows", mutates_args=())
def _gelu_beside_rows(attn: Tensor, mlp: Tensor) -> tuple[Tensor, Tensor]:
    _check_rows("attn", attn)
    _check_rows("mlp", mlp)
    if attn.shape[:2] != mlp.shape[:2] or attn.dtype != mlp.dtype:
        raise ValueError(
            f"mlp is {mlp.dtype} {list(mlp.shape)}, expected {attn.dtype} {[*attn.shape[:2], 'M']} as attn"
        )
    width = attn.shape[2] + mlp.shape[2]
    if width > WIDEST:
        raise ValueError(f"attn and mlp are {width} wide together, expected at most {WIDEST}")
    values, scale = _empty_rows(attn, width)
    _gelu_beside_rows_kernel[(attn.shape[0] * attn.shape[1],)](
        attn,
        mlp,
        values,
        scale,
        attn.shape[1],
        attn.shape[2],
        mlp.shape[2],
        *attn.stride()[:2],
        *mlp.stride()[:2],
        ATTN=triton.next_power_of_2(attn.shape[2]),
        **_blocks(mlp.shape[2]),
        num_warps=_warps(width),
    )
    return values, scale


@torch.library.custom_op("hyvideo_rt::layer_norm_modulate_rows", mutates_args=())
def _layer_norm_modulate_rows(x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    _check_rows("x", x)
    expected = [x.shape[0], x.shape[2]]
    for name, vector in (("shift", shift), ("scale", scale)):
        if list(vector.shape) != expected or vector.stride(1) != 1:
            raise ValueError(
                f"{name} is {list(vector.shape)} with strides {vector.stride()}, "
                f"expected {expected} with a contiguous last dimension"
            )
    values, scales = _empty_rows(x, x.shape[2])
    _layer_norm_modulate_rows_kernel[(x.shape[0] * x.shape[1],)](
        x,
        shift,
        scale,
        values,
        scales,
        x.shape[1],
        x.shape[2],
        *x.stride()[:2],
        shift.stride(0),
        scale.stride(0),
        **_blocks(x.shape[2]),
        num_warps=_warps(x.shape[2]),
    )
    return values, scales


@torch.library.custom_op("hyvideo_rt::quantise_tensor", mutates_args=())
def _quantise_tensor(x: Tensor) -> tuple[Tensor, Tensor]:
    _check_rows("x", x)
    rows, width = x.shape[0] * x.shape[1], x.shape[2]
    sizes, blocks = (x.shape[1], width, *x.stride()[:2]), _blocks(width)
    values, largest = _empty_rows(x, width)
    _largest_of_rows_kernel[(rows,)](x, largest, *sizes, **blocks, num_warps=_warps(width))
    scale = largest.amax().clamp(min=SMALLEST_ROW).mul(1 / E4M3_MAX).view(1, 1, 1)
    _divide_rows_kernel[(rows,)](x, scale, values, *sizes, **blocks, num_warps=_warps(width))
    return values, scale


@_quantise_rows.register_fake
@_gelu_rows.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_rows(x, x.shape[2])


@_gelu_beside_rows.register_fake
def _(attn: Tensor, mlp: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_rows(attn, attn.shape[2] + mlp.shape[2])


@_layer_norm_modulate_rows.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_rows(x, x.shape[2])


@_quantise_tensor.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=E4M3), x.new_empty((1, 1, 1), dtype=torch.float32)


def _launch_rows(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    _check_rows("x", x)
    values, scale = _empty_rows(x, x.shape[2])
    _quantise_rows_kernel[(x.shape[0] * x.shape[1],)](
        x,
        values,
        scale,
        x.shape[1],
        x.shape[2],
        *x.stride()[:2],
        GELU=gelu,
        **_blocks(x.shape[2]),
        num_warps=_warps(x.shape[2]),
    )
    return values, scale


def _check_rows(name: str, x: Tensor) -> None:
    if x.ndim != 3 or not 2 <= x.shape[2] <= WIDEST:
        raise ValueError(f"{name} is {list(x.shape)}, expected [B, L, K] with K from 2 to {WIDEST}")
    if x.stride(2) != 1:
        raise ValueError(f"{name} has strides {x.stride()}, expected a contiguous last dimension")
    if x.dtype not in DTYPES:
        raise ValueError(f"{name} is {x.dtype}, expected one of {', '.join(map(str, DTYPES))}")


def _empty_rows(x: Tensor, width: int) -> tuple[Tensor, Tensor]:
    batch, tokens = x.shape[:2]
    values = x.new_empty((batch, tokens, width), dtype=E4M3)
    return values, x.new_empty((batch, tokens, 1), dtype=torch.float32)


def _blocks(width: int) -> dict[str, int]:
    first = int(triton.next_power_of_2(width)) // 2
    return {"FIRST": first, "REST": int(triton.next_power_of_2(width - first))}


def _warps(width: int) -> int:
    return max(1, int(triton.next_power_of_2(width)) // ELEMENTS_PER_WARP)
