"""How much arithmetic a request is, stage by stage: products counted as two operations per multiply-add.

Of a step by the model's formula (`DiTConfig.flops_per_step`); of the text encoders and of the VAE's tiles
counted by torch on networks without storage, so that it is the number of what really runs.
"""

import functools
from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import ModelConfig, VAEConfig
from hyvideo_rt.models.clip import ClipTextEncoder
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.tiling import Tiling
from hyvideo_rt.models.tokenizers import VIDEO_TEMPLATE
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.text import TextStates

META = torch.device("meta")
IN_8_BITS: dict[
    str | None, tuple[float, float]
] = {  # by setting of bench.quality: of the products of linear layers, and of attention's
    "bf16": (0.0, 0.0),
    "8-bit weights": (0.0, 0.0),
    "8-bit products": (1.0, 0.0),
    "8-bit attention": (0.0, 1.0),
    "8-bit attention and output": (0.0, 1.0),
    "SageAttention (INT8)": (0.0, 0.5),
    "8-bit products and attention": (1.0, 1.0),
}


@dataclass(frozen=True)
class Flops:
    """Of the products of linear layers or convolutions, and of attention's two."""

    products: int
    attention: int = 0

    @property
    def total(self) -> int:
        return self.products + self.attention

    def by_bits(self, setting: str | None) -> dict[int, float]:
        """Under a setting of `bench.quality`, those in 8 bits and the others: as 16, for that and more."""
        products, attention = IN_8_BITS.get(setting, (0.0, 0.0))
        narrow = products * self.products + attention * self.attention
        return {16: self.total - narrow} | ({8: narrow} if narrow else {})


def request_flops(config: ModelConfig, text: TextStates, params: SamplingParams) -> dict[str, int]:
    """Of a prompt and its video, by stage; of `denoise`, all steps."""
    found = {
        "encode": encode_flops(config, text.num_llm_tokens + VIDEO_TEMPLATE.crop_start),
        "denoise": params.num_inference_steps * step_flops(config, params.bucket, text.states.shape[1]),
        "decode": decode_flops(config, params.bucket),
    }
    return found | {"video": sum(found.values())}


def step_flops(config: ModelConfig, bucket: Bucket, text_tokens: int) -> int:
    return config.dit.flops_per_step(bucket, text_tokens)


def step_parts(config: ModelConfig, bucket: Bucket, text_tokens: int) -> Flops:
    """`step_flops`, attention's apart."""
    attention = config.dit.attention_flops_per_step(bucket, text_tokens)
    return Flops(step_flops(config, bucket, text_tokens) - attention, attention)


def decode_flops(config: ModelConfig, bucket: Bucket) -> int:
    """Of all tiles, what they share counted as often as it is computed."""
    tiles = Counter(Tiling.decode(config.vae).tile_shapes(bucket.latent_shape))
    return sum(count * tile_flops(config.vae, shape) for shape, count in tiles.items())


@functools.cache
def tile_flops(config: VAEConfig, shape: tuple[int, int, int]) -> int:
    """Of one tile of latents (T, H, W)."""
    with META:
        vae, z = CausalVAE(config), torch.empty(1, config.latent_channels, *shape)
    return _counted(vae, lambda: vae.decode(z))


@functools.cache
def encode_flops(config: ModelConfig, llm_tokens: int, skip_layers: int = 2) -> int:
    """Of both encoders for a prompt of so many tokens, its template included."""
    with META:
        llm = LlamaEncoder(config.llm, skip_layers)
        clip = ClipTextEncoder(config.clip)
        ids = torch.zeros(1, llm_tokens, dtype=torch.int64)
        short = torch.zeros(1, config.clip.max_positions, dtype=torch.int64)
    return _counted(llm, lambda: llm(ids)) + _counted(clip, lambda: clip(short))


@torch.no_grad()
def _counted(module: nn.Module, run: object) -> int:
    assert callable(run)
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
