"""How much arithmetic a request is, stage by stage: products counted as two operations per multiply-add.

Of a step by the model's formula (`DiTConfig.flops_per_step`); of the text encoders and of the VAE's tiles
counted by torch on networks without storage, so that it is the number of what really runs.
"""

import functools
from collections import Counter

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
