"""The table of operators that the networks are built from; whoever builds a network chooses one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from hyvideo_rt.kernels.attention import frame_causal_attention_reference, joint_attention_reference
from hyvideo_rt.kernels.conv3d import conv3d_reference
from hyvideo_rt.kernels.gelu import gelu_beside_reference, gelu_reference
from hyvideo_rt.kernels.group_norm import group_norm_silu_pad_reference
from hyvideo_rt.kernels.modulate import (
    gate_residual_norm_reference,
    gate_residual_reference,
    layer_norm_modulate_reference,
)
from hyvideo_rt.kernels.quantise import (
    Rows,
    gelu_beside_rows_reference,
    gelu_rows_reference,
    layer_norm_modulate_rows_reference,
    quantise_rows_reference,
)
from hyvideo_rt.kernels.rope import joint_qkv_reference, qk_norm_rope_reference
from hyvideo_rt.kernels.upsample import upsample_pad_reference

Activation = Tensor | Rows  # what a linear layer reads
Pair = tuple[Tensor, Tensor]
Triple = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Ops:
    """channels_last says in which memory format the convolutions of the VAE want their weights.

    Those whose names end in rows round their result to 8 bits; see `in_8_bits`.
    """

    name: str
    layer_norm_modulate: Callable[[Tensor, Tensor, Tensor], Activation]
    gate_residual: Callable[[Tensor, Tensor, Tensor], Tensor]
    gate_residual_norm: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Activation]]
    qk_norm_rope: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Pair]
    joint_qkv: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Triple]
    joint_attention: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    gelu: Callable[[Tensor], Activation]
    gelu_beside: Callable[[Tensor, Tensor], Activation]
    quantise_rows: Callable[[Tensor], Rows]
    layer_norm_modulate_rows: Callable[[Tensor, Tensor, Tensor], Rows]
    gelu_rows: Callable[[Tensor], Rows]
    gelu_beside_rows: Callable[[Tensor, Tensor], Rows]
    frame_causal_attention: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    group_norm_silu_pad: Callable[[Tensor, Tensor, Tensor, int, Sequence[int]], Tensor]
    upsample_pad: Callable[[Tensor, Sequence[int], Sequence[int]], Tensor]
    conv3d: Callable[[Tensor, Tensor, Tensor, Sequence[int]], Tensor]
    channels_last: bool = False


REFERENCE = Ops(
    name="reference",
    layer_norm_modulate=layer_norm_modulate_reference,
    gate_residual=gate_residual_reference,
    gate_residual_norm=gate_residual_norm_reference,
    qk_norm_rope=qk_norm_rope_reference,
    joint_qkv=joint_qkv_reference,
    joint_attention=joint_attention_reference,
    gelu=gelu_reference,
    gelu_beside=gelu_beside_reference,
    quantise_rows=quantise_rows_reference,
    layer_norm_modulate_rows=layer_norm_modulate_rows_reference,
    gelu_rows=gelu_rows_reference,
    gelu_beside_rows=gelu_beside_rows_reference,
    frame_causal_attention=frame_causal_attention_reference,
    group_norm_silu_pad=group_norm_silu_pad_reference,
    upsample_pad=upsample_pad_reference,
    conv3d=conv3d_reference,
)


def in_8_bits(ops: Ops) -> Ops:
    """For blocks whose linear layers read 8 bits: what stands before one rounds to them in the same pass."""

    def gate_residual_norm(
        x: Tensor, gate: Tensor, y: Tensor, shift: Tensor, scale: Tensor
    ) -> tuple[Tensor, Rows]:
        total = ops.gate_residual(x, gate, y)
        return total, ops.layer_norm_modulate_rows(total, shift, scale)

    return replace(
        ops,
        name=f"{ops.name}, fp8",
        layer_norm_modulate=ops.layer_norm_modulate_rows,
        gate_residual_norm=gate_residual_norm,
        gelu=ops.gelu_rows,
        gelu_beside=ops.gelu_beside_rows,
    )
