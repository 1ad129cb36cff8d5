"""`kernels/rope.py` in Triton: each input is read once, each output written once.

A program owns one token with all its heads of q and k (and of v, where that is copied), 12 or 18 KB in flight
at 24 heads of 128 in bf16, so the token's cos and sin are read once too. Four neighbouring pairs come as one
16-byte load and are split and joined again in registers.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyvideo_rt.kernels.modulate_triton import expect, expect_dtype, warps
from hyvideo_rt.kernels.rope import EPS


@triton.jit
def _norm_rope_kernel(
    qkv_ptr,
    q_weight_ptr,
    k_weight_ptr,
    cos_ptr,
    sin_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    qkv_batch,
    qkv_token,
    qkv_part,
    qkv_head,
    out_batch,
    rotated,
    heads: tl.constexpr,
    head_dim: tl.constexpr,
    block_heads: tl.constexpr,
    block_dim: tl.constexpr,
    eps: tl.constexpr,
):
    """Tokens from `rotated` on are turned by an angle of zero; without v_ptr, v is left alone."""
    token, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    head, column = tl.arange(0, block_heads)[:, None], tl.arange(0, block_dim)[None, :]
    inside = (head < heads) & (column < head_dim)
    q_at = qkv_ptr + batch * qkv_batch + token * qkv_token + head * qkv_head + column
    q = tl.load(q_at, mask=inside, other=0.0)
    k = tl.load(q_at + qkv_part, mask=inside, other=0.0)
    pair = tl.arange(0, block_dim // 2)[None, :]
    turned = (pair < head_dim // 2) & (token + 0 * pair < rotated)  # the interpreter wants equal shapes
    cos = tl.load(cos_ptr + token * (head_dim // 2) + pair, mask=turned, other=1.0)
    sin = tl.load(sin_ptr + token * (head_dim // 2) + pair, mask=turned, other=0.0)
    # One-dimensional: as a row beside q it would pull the whole tile of q through shared memory and back.
    columns = tl.arange(0, block_dim)
    q_weight = tl.load(q_weight_ptr + columns, mask=columns < head_dim, other=0.0)
    k_weight = tl.load(k_weight_ptr + columns, mask=columns < head_dim, other=0.0)

    out_at = batch * out_batch + token * (heads * head_dim) + head * head_dim + column
    if v_ptr is not None:
        v = tl.load(q_at + 2 * qkv_part, mask=inside)
        tl.store(v_ptr + out_at, v, mask=inside)
    tl.store(q_ptr + out_at, _norm_rope(q, q_weight, cos, sin, head_dim, eps), mask=inside)
    tl.store(k_ptr + out_at, _norm_rope(k, k_weight, cos, sin, head_dim, eps), mask=inside)


@triton.jit
def _norm_rope(x, weight, cos, sin, head_dim: tl.constexpr, eps: tl.constexpr):
    """x [heads, hd], weight [hd], cos, sin [1, hd / 2]; rounded to x's dtype where the reference rounds."""
    y = x.to(tl.float32)
    y = y * tl.rsqrt(tl.sum(y * y, axis=1) / head_dim + eps)[:, None]
    y = y.to(x.dtype).to(tl.float32) * weight.to(tl.float32)[None, :]
    pairs = tl.reshape(y.to(x.dtype).to(tl.float32), (x.shape[0], x.shape[1] // 2, 2))
    even, odd = tl.split(pairs)
    return tl.reshape(tl.join(even * cos - odd * sin, odd * cos + even * sin), x.shape).to(x.dtype)


@torch.library.custom_op("hyvideo_rt::qk_norm_rope", mutates_args=())
def qk_norm_rope(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor]:
    """q and k [B, L, nh, hd] of a single block; v stays where it is.

    qkv [B, L, 3, nh, hd] fp32, fp16 or bf16, the last dimension contiguous; weights [hd] like qkv; cos, sin
    [N, hd / 2] fp32, N <= L.
    """
    _expect_qkv("qkv", qkv)
    _expect_weights(qkv, q_weight=q_weight, k_weight=k_weight)
    _expect_tables(qkv, cos, sin)
    b, tokens, _, heads, head_dim = qkv.shape
    q, k = (qkv.new_empty(b, tokens, heads, head_dim) for _ in range(2))
    _launch(qkv, q_weight, k_weight, cos, sin, cos.shape[0], q, k, None)
    return q, k


@qk_norm_rope.register_fake
def _(qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    b, tokens, _, heads, head_dim = qkv.shape
    return qkv.new_empty(b, tokens, heads, head_dim), qkv.new_empty(b, tokens, heads, head_dim)


@torch.library.custom_op("hyvideo_rt::joint_qkv", mutates_args=())
def joint_qkv(
    img_qkv: Tensor,
    txt_qkv: Tensor,
    img_q_weight: Tensor,
    img_k_weight: Tensor,
    txt_q_weight: Tensor,
    txt_k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v [B, N + L, nh, hd] of a double block, image first: both streams write into the joint one.

    img_qkv [B, N, 3, nh, hd], txt_qkv [B, L, 3, nh, hd] fp32, fp16 or bf16, the last dimension contiguous;
    weights [hd] like them; cos, sin fp32 [N, hd / 2].
    """
    _expect_qkv("img_qkv", img_qkv)
    b, image_tokens, _, heads, head_dim = img_qkv.shape
    _expect_qkv("txt_qkv", txt_qkv)
    expect("txt_qkv", txt_qkv, (b, txt_qkv.shape[1], 3, heads, head_dim), img_qkv.dtype)
    _expect_weights(img_qkv, img_q_weight=img_q_weight, img_k_weight=img_k_weight)
    _expect_weights(img_qkv, txt_q_weight=txt_q_weight, txt_k_weight=txt_k_weight)
    _expect_tables(img_qkv, cos, sin)
    joint = _empty_joint(img_qkv, txt_qkv)
    image, text = ([x[:, :image_tokens] for x in joint], [x[:, image_tokens:] for x in joint])
    _launch(img_qkv, img_q_weight, img_k_weight, cos, sin, cos.shape[0], *image)
    _launch(txt_qkv, txt_q_weight, txt_k_weight, cos, sin, 0, *text)
    return joint


@joint_qkv.register_fake
def _(
    img_qkv: Tensor,
    txt_qkv: Tensor,
    img_q_weight: Tensor,
    img_k_weight: Tensor,
    txt_q_weight: Tensor,
    txt_k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_joint(img_qkv, txt_qkv)


def _empty_joint(img_qkv: Tensor, txt_qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    b, tokens, _, heads, head_dim = img_qkv.shape
    shape = (b, tokens + txt_qkv.shape[1], heads, head_dim)
    return img_qkv.new_empty(shape), img_qkv.new_empty(shape), img_qkv.new_empty(shape)


def _launch(
    qkv: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    rotated: int,
    q: Tensor,
    k: Tensor,
    v: Tensor | None,
) -> None:
    """q, k, v: as many tokens as qkv, each token contiguous, all with the same strides."""
    b, tokens, _, heads, head_dim = qkv.shape
    block_heads, block_dim = triton.next_power_of_2(heads), triton.next_power_of_2(head_dim)
    _norm_rope_kernel[(tokens, b)](
        qkv,
        q_weight,
        k_weight,
        cos,
        sin,
        q,
        k,
        v,
        *qkv.stride()[:4],
        q.stride(0),
        rotated,
        heads=heads,
        head_dim=head_dim,
        block_heads=block_heads,
        block_dim=block_dim,
        eps=EPS,
        num_warps=warps(block_heads * block_dim),
    )


def _expect_qkv(name: str, qkv: Tensor) -> None:
    if qkv.ndim != 5 or qkv.shape[2] != 3 or qkv.shape[-1] % 2:
        raise ValueError(f"{name} is {list(qkv.shape)}, expected [B, L, 3, nh, hd] with an even hd")
    expect_dtype(name, qkv)
    expect(name, qkv, qkv.shape, qkv.dtype)


def _expect_weights(qkv: Tensor, **weights: Tensor) -> None:
    for name, weight in weights.items():
        expect(name, weight, qkv.shape[-1:], qkv.dtype)


def _expect_tables(qkv: Tensor, cos: Tensor, sin: Tensor) -> None:
    """The kernel counts on their rows lying one behind the other."""
    shape = (cos.shape[0], qkv.shape[-1] // 2)
    for name, table in (("cos", cos), ("sin", sin)):
        expect(name, table, shape, torch.float32)
        if not table.is_contiguous():
            raise ValueError(f"{name} has strides {table.stride()}, expected a contiguous table")
    if shape[0] > qkv.shape[1]:
        raise ValueError(f"cos and sin have {shape[0]} rows for {qkv.shape[1]} tokens, expected no more")
