"""What is compiled: a block, or the decoding of one tile, as a function of its inputs and of its weights.

The weights are inputs like any other, in the order of `block_weights`: an engine holds none, all blocks of a
kind share one, and a weight changed in place changes what every engine computes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hyvideo_rt.config import DiTConfig, VAEConfig
from hyvideo_rt.kernels.ops import REFERENCE, Ops
from hyvideo_rt.models.dit import DoubleBlock, SingleBlock, block_weights
from hyvideo_rt.models.vae import CausalVAE, VAEDecoding

TEXT, JOINT = "text", "joint"  # sizes that vary between calls: text tokens; image and text tokens


@dataclass(frozen=True)
class Argument:
    """A tensor that goes in or comes out; sizes that vary between calls are names."""

    name: str
    shape: tuple[int | str, ...]
    dtype: torch.dtype

    def zeros(self, sizes: Mapping[str, int], device: torch.device) -> Tensor:
        shape = [sizes[size] if isinstance(size, str) else size for size in self.shape]
        return torch.zeros(shape, dtype=self.dtype, device=device)


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
        """skeleton is a module on the meta device, `call` makes its arguments of the inputs."""
        super().__init__()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.weights = tuple(
            Argument(name, tuple(tensor.shape), dtype) for name, tensor in block_weights(skeleton).items()
        )
        self._skeleton, self._call = [skeleton], call  # in a list: its meta tensors are not this module's

    def forward(self, inputs: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        state = {each.name: tensor for each, tensor in zip(self.weights, weights, strict=True)}
        out = functional_call(self._skeleton[0], state, self._call(inputs))
        return out if isinstance(out, tuple) else (out,)


def double_block(config: DiTConfig, image_tokens: int, dtype: torch.dtype, ops: Ops = REFERENCE) -> Program:
    """img, txt, img_mod, txt_mod, cos, sin to img, txt, as `DoubleBlock.forward` where all text is valid."""
    d, n = config.hidden_size, image_tokens
    streams = [Argument("img", (1, n, d), dtype), Argument("txt", (1, TEXT, d), dtype)]
    mods = [Argument("img_mod", (1, 6, d), dtype), Argument("txt_mod", (1, 6, d), dtype)]
    with torch.device("meta"):
        skeleton = DoubleBlock(config, ops, nn.Linear)

    def call(inputs: Sequence[Tensor]) -> tuple[object, ...]:
        img, txt, img_mod, txt_mod, *rope = inputs
        return img, txt, img_mod, txt_mod, rope, None

    return Program(skeleton, call, [*streams, *mods, *_rope(config, n)], streams, dtype)


def single_block(config: DiTConfig, dtype: torch.dtype, ops: Ops = REFERENCE) -> Program:
    """x, mod, cos, sin to x, over the joint stream, as `SingleBlock.forward` where all text is valid."""
    stream = Argument("x", (1, JOINT, config.hidden_size), dtype)
    mod = Argument("mod", (1, 3, config.hidden_size), dtype)
    with torch.device("meta"):
        skeleton = SingleBlock(config, ops, nn.Linear)

    def call(inputs: Sequence[Tensor]) -> tuple[object, ...]:
        x, mod, *rope = inputs
        return x, mod, rope, None

    return Program(skeleton, call, [stream, mod, *_rope(config, JOINT)], [stream], dtype)


def vae_decoder_tile(
    config: VAEConfig, tile: tuple[int, int, int], dtype: torch.dtype, ops: Ops = REFERENCE
) -> Program:
    """Latents z of one tile (T, H, W) to its pixels, as `CausalVAE.decode`."""
    frames, height, width = tile
    z = Argument("z", (1, config.latent_channels, frames, height, width), dtype)
    pixels = Argument("video", (1, config.out_channels, 4 * (frames - 1) + 1, 8 * height, 8 * width), dtype)
    with torch.device("meta"):
        skeleton = VAEDecoding(CausalVAE(config, ops))
    return Program(skeleton, tuple, [z], [pixels], dtype)


def _rope(config: DiTConfig, tokens: int | str) -> list[Argument]:
    return [Argument(name, (tokens, config.head_dim // 2), torch.float32) for name in ("cos", "sin")]
