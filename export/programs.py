"""What is compiled: a block, or the decoding of one tile, as a function of its inputs and of its weights.

The weights are inputs like any other, in the order of `block_weights`: an engine holds none, all blocks of a
kind share one, and a weight changed in place changes what every engine computes.

For ONNX a program differs in two things that its builders want: linear weights are [in, out], and a block
has one input more, `valid` [1], the number of tokens that are not padding. Linear layers in FP8 are named.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hyvideo_rt.config import DiTConfig, ModelConfig, VAEConfig
from hyvideo_rt.engines.spec import EngineSpec, Precision
from hyvideo_rt.kernels.attention import joint_attention_fp8, joint_attention_spelt_out
from hyvideo_rt.kernels.attention_backends import opaque_joint_attention
from hyvideo_rt.kernels.conv3d import conv3d_onednn
from hyvideo_rt.kernels.fp8 import E4M3
from hyvideo_rt.kernels.ops import REFERENCE, Ops
from hyvideo_rt.models.dit import DoubleBlock, SingleBlock, block_weights
from hyvideo_rt.models.linear import (
    TransposedFp8Linear,
    TransposedLinear,
    linear_names,
    replace_linears,
)
from hyvideo_rt.models.vae import CausalVAE, VAEDecoding

# The layers of a block that can compute in 8 bits.
ATTENTION = "attention"
LINEARS = {
    "double_block": tuple(
        f"{stream}_{layer}"
        for stream in ("img", "txt")
        for layer in ("attn_qkv", "attn_proj", "mlp.fc1", "mlp.fc2")
    ),
    "single_block": ("linear1", "linear2"),
}
DTYPES: dict[Precision, torch.dtype] = {  # of the streams; under fp8, products are narrower
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,
}
IMAGE, TEXT, JOINT = "image", "text", "joint"  # numbers of tokens: of the video, of the prompt, of both


@dataclass(frozen=True)
class Argument:
    """A tensor that goes in or comes out; numbers of tokens are names."""

    name: str
    shape: tuple[int | str, ...]
    dtype: torch.dtype

    def resolved(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(sizes[size] if isinstance(size, str) else size for size in self.shape)

    def zeros(self, sizes: Mapping[str, int], device: torch.device) -> Tensor:
        return torch.zeros(self.resolved(sizes), dtype=self.dtype, device=device)


VALID = Argument("valid", (1,), torch.int64)


class Program(nn.Module):
    """`program(inputs, weights)`, two lists of tensors; itself it holds none."""

    def __init__(
        self,
        skeleton: nn.Module,
        call: Callable[[Sequence[Tensor]], tuple[object, ...]],
        inputs: Sequence[Argument],
        outputs: Sequence[Argument],
        dtype: torch.dtype,
    ) -> None:
        """skeleton is a module on the meta device, `call` makes its arguments of the inputs.

        Outputs have the name of what they replace, and `_out`: in a graph, one name is one tensor.
        """
        super().__init__()
        self.inputs = tuple(inputs)
        self.outputs = tuple(replace(each, name=f"{each.name}_out") for each in outputs)
        self.weights = tuple(
            Argument(name, tuple(tensor.shape), _stored_dtype(name, tensor, dtype))
            for name, tensor in block_weights(skeleton).items()
        )
        self._skeleton, self._call = [skeleton], call  # in a list: its meta tensors are not this module's

    def forward(self, inputs: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        state = {each.name: tensor for each, tensor in zip(self.weights, weights, strict=True)}
        out = functional_call(self._skeleton[0], state, self._call(inputs))
        return out if isinstance(out, tuple) else (out,)


def program_of(
    spec: EngineSpec, config: ModelConfig, ops: Ops | None = None, dtype: torch.dtype | None = None
) -> Program:
    """By default with the reference's operators and in the precision's dtype."""
    dtype, onnx = dtype or DTYPES[spec.precision], spec.backend != "inductor"
    if spec.component == "vae_decoder_tile":
        frames, height, width = spec.shape
        return vae_decoder_tile(config.vae, (frames, height, width), dtype, ops or REFERENCE, onnx=onnx)
    make = double_block if spec.component == "double_block" else single_block
    narrow = {ATTENTION, *LINEARS[spec.component]}.difference(spec.wide) if spec.precision == "fp8" else set()
    fp8 = [name for name in LINEARS[spec.component] if name in narrow]
    if ATTENTION in narrow:
        ops = replace(ops or REFERENCE, joint_attention=joint_attention_fp8)
    return make(config.dit, dtype, ops or REFERENCE, onnx=onnx, fp8=fp8)


def ops_for(spec: EngineSpec) -> Ops:
    """What is traced: attention in its parts for ONNX, and for Inductor as one call if it is named; there
    oneDNN by name as well (see `kernels.conv3d`).
    """
    if spec.backend != "inductor":
        return replace(REFERENCE, joint_attention=joint_attention_spelt_out)
    ops = REFERENCE
    if spec.attention:
        ops = replace(ops, joint_attention=opaque_joint_attention(spec.attention))
    onednn = spec.target.startswith("cpu") and spec.precision == "fp32"
    return replace(ops, conv3d=conv3d_onednn) if onednn else ops


def sizes_of(spec: EngineSpec, text_tokens: int) -> dict[str, int]:
    """Numbers of tokens by name; none for tiles, which have no open sizes."""
    if spec.component == "vae_decoder_tile":
        return {}
    return {IMAGE: spec.shape[0], TEXT: text_tokens, JOINT: spec.shape[0] + text_tokens}


def double_block(
    config: DiTConfig,
    dtype: torch.dtype,
    ops: Ops = REFERENCE,
    *,
    onnx: bool = False,
    fp8: Collection[str] = (),
) -> Program:
    """img, txt, img_mod, txt_mod, cos, sin to img, txt, as `DoubleBlock.forward`."""
    d = config.hidden_size
    streams = [Argument("img", (1, IMAGE, d), dtype), Argument("txt", (1, TEXT, d), dtype)]
    mods = [Argument("img_mod", (1, 6, d), dtype), Argument("txt_mod", (1, 6, d), dtype)]
    inputs = [*streams, *mods, *_rope(config, IMAGE), *([VALID] if onnx else [])]
    skeleton = _skeleton(lambda: DoubleBlock(config, ops, nn.Linear), onnx, fp8)
    return Program(skeleton, partial(_block_arguments, onnx=onnx), inputs, streams, dtype)


def single_block(
    config: DiTConfig,
    dtype: torch.dtype,
    ops: Ops = REFERENCE,
    *,
    onnx: bool = False,
    fp8: Collection[str] = (),
) -> Program:
    """x, mod, cos, sin to x, over the joint stream, as `SingleBlock.forward`."""
    stream = Argument("x", (1, JOINT, config.hidden_size), dtype)
    mod = Argument("mod", (1, 3, config.hidden_size), dtype)
    inputs = [stream, mod, *_rope(config, JOINT), *([VALID] if onnx else [])]
    skeleton = _skeleton(lambda: SingleBlock(config, ops, nn.Linear), onnx, fp8)
    return Program(skeleton, partial(_block_arguments, onnx=onnx), inputs, [stream], dtype)


def vae_decoder_tile(
    config: VAEConfig,
    tile: tuple[int, int, int],
    dtype: torch.dtype,
    ops: Ops = REFERENCE,
    *,
    onnx: bool = False,
) -> Program:
    """Latents z of one tile (T, H, W) to its pixels, as `CausalVAE.decode`."""
    frames, height, width = tile
    z = Argument("z", (1, config.latent_channels, frames, height, width), dtype)
    pixels = Argument("video", (1, config.out_channels, 4 * (frames - 1) + 1, 8 * height, 8 * width), dtype)
    skeleton = _skeleton(lambda: VAEDecoding(CausalVAE(config, ops)), onnx)
    return Program(skeleton, tuple, [z], [pixels], dtype)


def _block_arguments(inputs: Sequence[Tensor], onnx: bool) -> tuple[object, ...]:
    """As a block's `forward` takes them: RoPE's tables as a pair, and None where all tokens are valid."""
    *first, cos, sin, valid = inputs if onnx else [*inputs, None]
    return *first, (cos, sin), valid


def _skeleton(make: Callable[[], nn.Module], onnx: bool, fp8: Collection[str] = ()) -> nn.Module:
    assert onnx or not fp8, "FP8 is for ONNX"
    with torch.device("meta"):
        skeleton = make()
        if onnx:
            wide = [name for name in linear_names(skeleton) if name not in fp8]
            replace_linears(skeleton, TransposedLinear, wide)
            replace_linears(skeleton, TransposedFp8Linear, fp8)
    return skeleton


def _stored_dtype(name: str, tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    """That of the program, but E4M3 stays what it is and its scales are fp32."""
    if tensor.dtype == E4M3:
        return E4M3
    return torch.float32 if name.endswith(".scale") else dtype


def _rope(config: DiTConfig, tokens: str) -> list[Argument]:
    return [Argument(name, (tokens, config.head_dim // 2), torch.float32) for name in ("cos", "sin")]
