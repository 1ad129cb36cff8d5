"""diffusers' own HunyuanVideoPipeline on the same folder, set so that it computes the same video as we do.

Left alone it differs in two ways: it draws its noise on the device, and it tiles the VAE in time by 16 frames
instead of the original's 64.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyvideo_rt.sampling import SamplingParams, initial_noise, make_sigmas


def load_peer(folder: Path, *, compiled: bool = False) -> Any:
    """The pipeline in fp32 on the CPU, with the original's tiles: 256 pixels, 64 frames, a quarter shared.

    `compiled` as diffusers' documentation recommends: its repeated blocks, each kind once, and the decoder.
    """
    from diffusers import HunyuanVideoPipeline

    pipe = HunyuanVideoPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    vae = pipe.vae
    vae.enable_tiling(
        tile_sample_min_height=256,
        tile_sample_min_width=256,
        tile_sample_min_num_frames=64,
        tile_sample_stride_height=192,
        tile_sample_stride_width=192,
        tile_sample_stride_num_frames=48,
    )
    if compiled:
        pipe.transformer.compile_repeated_blocks(fullgraph=True)
        pipe.vae.decoder.compile(fullgraph=True)
    return pipe


def peer_arguments(params: SamplingParams) -> dict[str, Any]:
    """What makes diffusers' call the same request."""
    arguments: dict[str, Any] = {
        "height": params.bucket.height,
        "width": params.bucket.width,
        "num_frames": params.bucket.num_frames,
        "num_inference_steps": params.num_inference_steps,
        "sigmas": np.linspace(1, 0, params.num_inference_steps + 1)[:-1].tolist(),
        "guidance_scale": params.guidance_scale,
        "latents": initial_noise(params.bucket, params.seed),
    }
    if params.uses_cfg:
        arguments |= {"true_cfg_scale": params.true_cfg_scale, "negative_prompt": params.negative_prompt}
    assert make_sigmas(params)[0] == 1, "diffusers has no forward schedule"
    return arguments


def peer_video(pipe: Any, prompt: str, params: SamplingParams) -> Tensor:
    """The decoded video [1, 3, F, H, W] in 0..1, fp32."""
    with torch.no_grad():
        frames: Tensor = pipe(prompt=prompt, output_type="pt", **peer_arguments(params)).frames
    return frames.transpose(1, 2)
