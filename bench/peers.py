"""diffusers and xDiT on the same weights, set so that they compute the same video as we do.

Left alone, diffusers' pipeline differs in two ways: it draws its noise on the device, and it tiles the VAE in
time by 16 frames instead of the original's 64.
"""

import contextlib
import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyvideo_rt.bench.building import BACKENDS, import_library
from hyvideo_rt.bench.networks import Networks, StepInputs
from hyvideo_rt.sampling import SamplingParams, initial_noise, make_sigmas
from hyvideo_rt.weights.layouts import Piece, diffusers_from_original
from hyvideo_rt.weights.model_configs import dit_json, vae_json

DIFFUSERS = (
    "diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video",
    "diffusers.models.transformers.transformer_hunyuan_video",
    "diffusers.models.autoencoders.autoencoder_kl_hunyuan_video",
)


def import_libraries(device: torch.device) -> None:
    """What contestants import, before they do, so that it is in nobody's memory.

    Also torch's first cosines, in one thread: diffusers' would be in several (`kernels.rope.cos_sin`).
    """
    one = torch.ones(1)
    one.cos(), one.sin()
    names = (*DIFFUSERS, "torch._inductor.compile_fx")
    imports: list[Callable[[], object]] = [partial(importlib.import_module, name) for name in names]
    imports += [partial(import_library, backend) for backend in BACKENDS[device.type]]
    for each in imports:
        with contextlib.suppress(Exception):  # it will be the reason of who needs it
            each()


def load_peer(folder: Path, *, compiled: bool = False) -> Any:
    """The pipeline in fp32 on the CPU, with the original's tiles: 256 pixels, 64 frames, a quarter shared.

    `compiled` as diffusers' documentation recommends: its repeated blocks, each kind once, and the decoder.
    """
    from diffusers import HunyuanVideoPipeline

    pipe = HunyuanVideoPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    _tile_as_the_original(pipe.vae)
    if compiled:
        pipe.transformer.compile_repeated_blocks(fullgraph=True)
        pipe.vae.decoder.compile(fullgraph=True)
    return pipe


def diffusers_step(networks: Networks, inputs: StepInputs, *, compiled: bool = False) -> Callable[[], Tensor]:
    """One evaluation of diffusers' transformer; its weights are views of ours."""
    from diffusers import HunyuanVideoTransformer3DModel

    dit = _with_our_weights(HunyuanVideoTransformer3DModel, networks)
    if compiled:
        dit.compile_repeated_blocks(fullgraph=True)
    return _step_of(dit, networks, inputs)


def xdit_step(networks: Networks, inputs: StepInputs) -> Callable[[], Tensor]:
    """One evaluation of xDiT's transformer (diffusers' with its own attention) as a group of one GPU.

    This has not run: xfuser, which the extra `gpu-suite` brings, is for GPUs.
    """
    from xfuser.core.distributed import init_distributed_environment, initialize_model_parallel
    from xfuser.core.distributed.runtime_state import initialize_runtime_state
    from xfuser.model_executor.models.transformers.transformer_hunyuan_video import (
        xFuserHunyuanVideoTransformer3DWrapper,
    )

    if not torch.distributed.is_initialized():
        init_distributed_environment(world_size=1, rank=0, distributed_init_method="tcp://127.0.0.1:29531")
        initialize_model_parallel()
        initialize_runtime_state()
    return _step_of(_with_our_weights(xFuserHunyuanVideoTransformer3DWrapper, networks), networks, inputs)


def diffusers_decode(networks: Networks, z: Tensor, *, compiled: bool = False) -> Callable[[], Tensor]:
    """z [1, 16, T, H, W] as the VAE reads it, decoded by the original's tiles."""
    from diffusers import AutoencoderKLHunyuanVideo

    with torch.device("meta"):
        vae = AutoencoderKLHunyuanVideo.from_config(vae_json(networks.config.vae, "diffusers"))
    vae.load_state_dict(networks.vae.state_dict(), assign=True)
    vae.eval()
    _tile_as_the_original(vae)
    if compiled:
        vae.decoder.compile(fullgraph=True)

    def decode() -> Tensor:
        with torch.inference_mode():
            sample: Tensor = vae.decode(z).sample
            return sample

    return decode


def _with_our_weights(kind: Any, networks: Networks) -> Any:
    weights = networks.dit.state_dict()

    def rows(piece: Piece) -> Tensor:
        part: Tensor = weights[piece.name][piece.start : piece.stop]
        return part

    with torch.device("meta"):
        dit = kind.from_config(dit_json(networks.config.dit, "diffusers"))
    pieces = diffusers_from_original(networks.config.dit)
    state = {
        k: rows(p[0]) if len(p) == 1 else torch.cat([rows(each) for each in p]) for k, p in pieces.items()
    }
    dit.load_state_dict(state, assign=True)
    return dit.eval()


def _step_of(dit: Any, networks: Networks, inputs: StepInputs) -> Callable[[], Tensor]:
    mask = torch.ones(inputs.text.shape[:2], dtype=torch.int64, device=networks.device)
    arguments = {
        "hidden_states": inputs.latents.to(networks.dtype),
        "timestep": inputs.t,
        "encoder_hidden_states": inputs.text,
        "encoder_attention_mask": mask,
        "pooled_projections": inputs.pooled,
        "guidance": inputs.guidance,
        "return_dict": False,
    }

    def step() -> Tensor:
        with torch.inference_mode():
            velocity: Tensor = dit(**arguments)[0]
            return velocity

    return step


def _tile_as_the_original(vae: Any) -> None:
    vae.enable_tiling(
        tile_sample_min_height=256,
        tile_sample_min_width=256,
        tile_sample_min_num_frames=64,
        tile_sample_stride_height=192,
        tile_sample_stride_width=192,
        tile_sample_stride_num_frames=48,
    )


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
