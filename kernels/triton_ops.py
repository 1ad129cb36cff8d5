"""The operators of a GPU: our Triton kernels, and attention by whichever library was chosen."""

from dataclasses import replace

import torch.nn.functional as F

from hyvideo_rt.kernels.attention_backends import Attend, joint_attention_by
from hyvideo_rt.kernels.gelu_triton import gelu_beside
from hyvideo_rt.kernels.group_norm_triton import group_norm_silu_pad
from hyvideo_rt.kernels.modulate_triton import gate_residual, gate_residual_norm, layer_norm_modulate
from hyvideo_rt.kernels.ops import REFERENCE, Ops
from hyvideo_rt.kernels.quantise_triton import (
    gelu_beside_rows,
    gelu_rows,
    layer_norm_modulate_rows,
    quantise_rows,
)
from hyvideo_rt.kernels.rope_triton import joint_qkv, qk_norm_rope
from hyvideo_rt.kernels.upsample_triton import upsample_pad


def triton_ops(attention: str, attend: Attend) -> Ops:
    return replace(
        REFERENCE,
        name=f"triton, {attention}",
        layer_norm_modulate=layer_norm_modulate,
        gate_residual=gate_residual,
        gate_residual_norm=gate_residual_norm,
        qk_norm_rope=qk_norm_rope,
        joint_qkv=joint_qkv,
        joint_attention=joint_attention_by(attend),
        gelu_beside=gelu_beside,
        quantise_rows=quantise_rows,
        layer_norm_modulate_rows=layer_norm_modulate_rows,
        gelu_rows=gelu_rows,
        gelu_beside_rows=gelu_beside_rows,
        group_norm_silu_pad=group_norm_silu_pad,
        upsample_pad=upsample_pad,
        conv3d=F.conv3d,
        channels_last=True,
    )
