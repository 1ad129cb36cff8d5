"""RMS-norm over each head, then rotation of interleaved pairs, for q or k of the joint stream.

``y = x * rsqrt(mean(x^2) + 1e-6) * weight``, then for pair i of an image token
``(y_2i, y_2i+1) -> (y_2i cos_i - y_2i+1 sin_i, y_2i+1 cos_i + y_2i sin_i)``.

x [B, L, nh, hd] bf16 or fp32; weight [hd]; cos, sin [N, hd / 2] fp32 with N <= L. The first N tokens are the
image and are rotated, the L - N text tokens behind them are only normalised. out like x.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-6


def rope_table(grid: Sequence[int], dims: Sequence[int], theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin [N, sum(dims) / 2] fp32 of the patch grid (T, h, w), N = T * h * w, row-major.

    Axis a owns dims[a] / 2 pairs with frequencies ``theta^(-2i / dims[a])``; positions are patch indices.
    Source: RoFormer (arXiv 2104.09864) per axis, with the axes side by side.
    """
    tables: tuple[list[Tensor], list[Tensor]] = ([], [])
    for axis, (size, dim) in enumerate(zip(grid, dims, strict=True)):
        frequencies = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        angle = torch.outer(torch.arange(size, dtype=torch.float32), frequencies)
        shape = [1, 1, 1, dim // 2]
        shape[axis] = size
        for table, values in zip(tables, cos_sin(angle), strict=True):
            table.append(values.view(shape).expand(*grid, dim // 2))
    cos, sin = (torch.cat(table, dim=-1).flatten(0, 2) for table in tables)
    return cos, sin


def cos_sin(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Of an fp32 angle, in fp32, computed in fp64.

    On a CPU the first fp32 cosine of a process may be wrong by 2e-4 in all that one thread computes, three in
    a hundred times with eight threads (MKL 2024.2, pytorch/pytorch#188792); the first fp64 one by 1e-8.
    """
    wide = angle.double()
    return wide.cos().float(), wide.sin().float()


def rms_norm_rope_reference(
    x: Tensor, weight: Tensor, cos: Tensor | None = None, sin: Tensor | None = None
) -> Tensor:
    acc = torch.promote_types(x.dtype, torch.float32)
    y = x.to(acc)
    y = (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + EPS)).to(x.dtype) * weight
    if cos is None or sin is None:
        return y
    tokens = cos.shape[0]
    even, odd = y[:, :tokens].to(acc).unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos.to(acc)[:, None], sin.to(acc)[:, None]
    image = torch.stack((even * c - odd * s, odd * c + even * s), dim=-1).flatten(-2).to(x.dtype)
    return image if tokens == y.shape[1] else torch.cat((image, y[:, tokens:]), dim=1)


def qk_norm_rope_reference(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor]:
    """q and k of a single block. qkv [B, L, 3, nh, hd]; weights [hd]; cos, sin [N, hd / 2], N <= L."""
    q, k, _ = qkv.unbind(2)
    return rms_norm_rope_reference(q, q_weight, cos, sin), rms_norm_rope_reference(k, k_weight, cos, sin)


def joint_qkv_reference(
    img_qkv: Tensor,
    txt_qkv: Tensor,
    img_q_weight: Tensor,
    img_k_weight: Tensor,
    txt_q_weight: Tensor,
    txt_k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v [B, N + L, nh, hd] of a double block, image first.

    img_qkv [B, N, 3, nh, hd], txt_qkv [B, L, 3, nh, hd]; weights [hd]; cos, sin [N, hd / 2].
    """
    q, k, v = img_qkv.unbind(2)
    txt_q, txt_k, txt_v = txt_qkv.unbind(2)
    norm = rms_norm_rope_reference
    q = torch.cat((norm(q, img_q_weight, cos, sin), norm(txt_q, txt_q_weight)), dim=1)
    k = torch.cat((norm(k, img_k_weight, cos, sin), norm(txt_k, txt_k_weight)), dim=1)
    return q, k, torch.cat((v, txt_v), dim=1)
