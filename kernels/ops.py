"""The table of operators that the networks are built from; whoever builds a network chooses one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from hyvideo_rt.kernels.attention import frame_causal_attention_reference, joint_attention_reference
from hyvideo_rt.kernels.conv3d import conv3d_reference
from hyvideo_rt.kernels.modulate import gate_residual_reference, layer_norm_modulate_reference
from hyvideo_rt.kernels.rope import rms_norm_rope_reference


@dataclass(frozen=True)
class Ops:
    layer_norm_modulate: Callable[[Tensor, Tensor, Tensor], Tensor]
    gate_residual: Callable[[Tensor, Tensor, Tensor], Tensor]
    rms_norm_rope: Callable[..., Tensor]
    joint_attention: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    frame_causal_attention: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    conv3d: Callable[[Tensor, Tensor, Tensor, Sequence[int]], Tensor]


REFERENCE = Ops(
    layer_norm_modulate=layer_norm_modulate_reference,
    gate_residual=gate_residual_reference,
    rms_norm_rope=rms_norm_rope_reference,
    joint_attention=joint_attention_reference,
    frame_causal_attention=frame_causal_attention_reference,
    conv3d=conv3d_reference,
)
