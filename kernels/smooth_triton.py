"""`smooth_reference` in two passes over memory: means and maxima, then the rounding."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyvideo_rt.kernels.fp8 import E4M3, E4M3_MAX
from hyvideo_rt.kernels.smooth import SMALLEST_SCALE, Smoothed, largest

ROWS = 64  # tokens of one head at a time: 16 KiB of k and as much of v
CHUNK = 32 * ROWS  # tokens per program of the first pass: 58 x 24 programs at 118,800 tokens


@triton.jit
def _moments_kernel(
    k_ptr, v_ptr, k_sum_ptr, v_sum_ptr, k_max_ptr, v_max_ptr, L, heads, chunks,
    k_batch, k_token, k_head, v_batch, v_token, v_head,
    HD: tl.constexpr, BLOCK_HD: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    chunk, pair = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    batch, head = pair // heads, pair % heads
    columns = tl.arange(0, BLOCK_HD)
    k_sum = tl.zeros((BLOCK_HD,), tl.float32)
    v_sum = tl.zeros((BLOCK_HD,), tl.float32)
    k_max = tl.zeros((BLOCK_HD,), tl.float32)
    v_max = tl.zeros((BLOCK_HD,), tl.float32)
    for start in range(0, CHUNK, ROWS):
        rows = chunk * CHUNK + start + tl.arange(0, ROWS)
        inside = (rows < L)[:, None] & (columns < HD)[None, :]
        k_at = k_ptr + batch * k_batch + head * k_head + rows[:, None] * k_token + columns[None, :]
        v_at = v_ptr + batch * v_batch + head * v_head + rows[:, None] * v_token + columns[None, :]
        k = tl.load(k_at, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(v_at, mask=inside, other=0.0).to(tl.float32)
        k_sum += tl.sum(k, axis=0)
        v_sum += tl.sum(v, axis=0)
        k_max = tl.maximum(k_max, tl.max(tl.abs(k), axis=0))
        v_max = tl.maximum(v_max, tl.max(tl.abs(v), axis=0))
    out = (pair * chunks + chunk) * HD + columns
    tl.store(k_sum_ptr + out, k_sum, mask=columns < HD)
    tl.store(v_sum_ptr + out, v_sum, mask=columns < HD)
    tl.store(k_max_ptr + out, k_max, mask=columns < HD)
    tl.store(v_max_ptr + out, v_max, mask=columns < HD)


@triton.jit
def _round_kernel(
    q_ptr, k_ptr, v_ptr, k_mean_ptr, v_mean_ptr, k_scale_ptr, v_scale_ptr, q_out_ptr, k_out_ptr, v_out_ptr,
    L, heads,
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head,
    HD: tl.constexpr, BLOCK_HD: tl.constexpr, ROWS: tl.constexpr, MAX: tl.constexpr,
):  # fmt: skip
    block, pair = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    batch, head = pair // heads, pair % heads
    columns = tl.arange(0, BLOCK_HD)
    rows = block * ROWS + tl.arange(0, ROWS)
    inside = (rows < L)[:, None] & (columns < HD)[None, :]
    q_at = q_ptr + batch * q_batch + head * q_head + rows[:, None] * q_token + columns[None, :]
    k_at = k_ptr + batch * k_batch + head * k_head + rows[:, None] * k_token + columns[None, :]
    v_at = v_ptr + batch * v_batch + head * v_head + rows[:, None] * v_token + columns[None, :]
    q = tl.load(q_at, mask=inside, other=0.0).to(tl.float32)
    k = tl.load(k_at, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(v_at, mask=inside, other=0.0).to(tl.float32)
    k_mean = tl.load(k_mean_ptr + pair * HD + columns, mask=columns < HD, other=0.0)
    v_mean = tl.load(v_mean_ptr + pair * HD + columns, mask=columns < HD, other=0.0)
    k_scale, v_scale = tl.load(k_scale_ptr + pair), tl.load(v_scale_ptr + pair)
    k = (k - k_mean[None, :]) / k_scale
    v = (v - v_mean[None, :]) / v_scale
    out = ((batch * L + rows[:, None]) * heads + head) * HD + columns[None, :]
    kind = q_out_ptr.dtype.element_ty
    tl.store(q_out_ptr + out, tl.minimum(tl.maximum(q, -MAX), MAX).to(kind), mask=inside)
    tl.store(k_out_ptr + out, tl.minimum(tl.maximum(k, -MAX), MAX).to(kind), mask=inside)
    tl.store(v_out_ptr + out, tl.minimum(tl.maximum(v, -MAX), MAX).to(kind), mask=inside)


def smooth(q: Tensor, k: Tensor, v: Tensor, *, one_scale: bool = False) -> Smoothed:
    """As `smooth_reference`; q, k and v may be views whose last dimension is contiguous."""
    if not q.shape == k.shape == v.shape or q.ndim != 4:
        raise ValueError(f"got q {q.shape}, k {k.shape}, v {v.shape}, expected three alike [B, L, nh, hd]")
    if any(x.stride(-1) != 1 for x in (q, k, v)):
        raise ValueError("got q, k or v whose last dimension is not contiguous")
    b, tokens, heads, hd = q.shape
    pairs, chunks = b * heads, triton.cdiv(tokens, CHUNK)
    width = triton.next_power_of_2(hd)
    k_sum, v_sum, k_max, v_max = torch.empty(4, pairs, chunks, hd, dtype=torch.float32, device=q.device)
    _moments_kernel[(chunks, pairs)](
        k, v, k_sum, v_sum, k_max, v_max, tokens, heads, chunks, *k.stride()[:3], *v.stride()[:3],
        HD=hd, BLOCK_HD=width, ROWS=ROWS, CHUNK=CHUNK, num_warps=8,
    )  # fmt: skip
    k_mean, v_mean = k_sum.sum(1) / tokens, v_sum.sum(1) / tokens
    k_scale, v_scale = (x.amax(dim=(1, 2)).clamp(min=SMALLEST_SCALE) * (2 / E4M3_MAX) for x in (k_max, v_max))
    if one_scale:
        k_scale, v_scale = largest(k_scale), largest(v_scale)
    out = [torch.empty(q.shape, dtype=E4M3, device=q.device) for _ in range(3)]
    _round_kernel[(triton.cdiv(tokens, ROWS), pairs)](
        q, k, v, k_mean, v_mean, k_scale, v_scale, *out, tokens, heads,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        HD=hd, BLOCK_HD=width, ROWS=ROWS, MAX=E4M3_MAX, num_warps=8,
    )  # fmt: skip
    scales = k_scale.view(b, heads), v_scale.view(b, heads)
    return Smoothed(out[0], out[1], out[2], *scales, v_mean.view(b, heads, hd))
