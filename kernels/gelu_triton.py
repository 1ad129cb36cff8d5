"""`kernels/gelu.py` in Triton: each input is read once, the output written once.

A program owns up to COLUMNS neighbouring elements of one row of the output, all of attn or all of mlp.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyvideo_rt.kernels.modulate_triton import expect, expect_dtype, warps

# A third of the full-size MLP's 12,288; at 4 warps a thread has four 16-byte loads of bf16 in flight.
COLUMNS = 4096


@triton.jit
def _gelu_beside_kernel(
    attn_ptr,
    mlp_ptr,
    out_ptr,
    attn_batch,
    attn_row,
    mlp_batch,
    mlp_row,
    attn_dim: tl.constexpr,
    mlp_dim: tl.constexpr,
    block: tl.constexpr,
):
    attn_blocks: tl.constexpr = (attn_dim + block - 1) // block
    blocks: tl.constexpr = attn_blocks + (mlp_dim + block - 1) // block
    program, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, part = (program // blocks).to(tl.int64), program % blocks
    out_ptr += (batch * (tl.num_programs(0) // blocks) + row) * (attn_dim + mlp_dim)
    if part < attn_blocks:
        columns = part * block + tl.arange(0, block)
        inside = columns < attn_dim
        x = tl.load(attn_ptr + batch * attn_batch + row * attn_row + columns, mask=inside)
        tl.store(out_ptr + columns, x, mask=inside)
    else:
        columns = (part - attn_blocks) * block + tl.arange(0, block)
        inside = columns < mlp_dim
        x = tl.load(mlp_ptr + batch * mlp_batch + row * mlp_row + columns, mask=inside, other=0.0)
        tl.store(out_ptr + attn_dim + columns, _gelu(x.to(tl.float32)).to(x.dtype), mask=inside)


@triton.jit
def _gelu(x):
    """``x / 2 (1 + tanh(u))`` with ``u = sqrt(2 / pi) (x + 0.044715 x^3)``, in fp32.

    tanh from exp, as the interpreter has no other; beyond 10 it is 1, and exp must not overflow.
    """
    u = 0.7978845608028654 * x * (1 + 0.044715 * x * x)
    tanh = 1 - 2 / (1 + tl.exp(2 * tl.minimum(tl.maximum(u, -10.0), 10.0)))
    return 0.5 * x * (1 + tanh)


@torch.library.custom_op("hyvideo_rt::gelu_beside", mutates_args=())
def gelu_beside(attn: Tensor, mlp: Tensor) -> Tensor:
    """attn [B, L, D], mlp [B, L, M] fp32, fp16 or bf16, the last dimension contiguous; out [B, L, D + M]."""
    for name, x in (("attn", attn), ("mlp", mlp)):
        if x.ndim != 3:
            raise ValueError(f"{name} is {list(x.shape)}, expected three dimensions")
    expect_dtype("attn", attn)
    b, tokens, d = attn.shape
    m = mlp.shape[-1]
    expect("attn", attn, attn.shape, attn.dtype)
    expect("mlp", mlp, (b, tokens, m), attn.dtype)
    out = attn.new_empty(b, tokens, d + m)
    block = min(COLUMNS, triton.next_power_of_2(max(d, m)))
    blocks = triton.cdiv(d, block) + triton.cdiv(m, block)
    _gelu_beside_kernel[(tokens * blocks, b)](
        attn,
        mlp,
        out,
        attn.stride(0),
        attn.stride(1),
        mlp.stride(0),
        mlp.stride(1),
        attn_dim=d,
        mlp_dim=m,
        block=block,
        num_warps=warps(block),
    )
    return out


@gelu_beside.register_fake
def _(attn: Tensor, mlp: Tensor) -> Tensor:
    b, tokens, d = attn.shape
    return attn.new_empty(b, tokens, d + mlp.shape[-1])
