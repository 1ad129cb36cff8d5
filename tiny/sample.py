"""Many videos at once from networks in training: the same steps as hyvideo_rt's pipeline, in batches."""

from functools import cache

import torch
from torch import Tensor

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.kernels.rope import rope_table
from hyvideo_rt.models.dit import Rope
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.sampling import SamplingParams, denoise, initial_noise, make_sigmas
from tiny.networks import TINY, Denoiser
from tiny.texts import Texts
from tiny.training import autocast

GUIDED_FROM = 0.72  # the noise level down to which guidance counts, see `guidance_at`


def rope_for(latents: Tensor) -> Rope:
    """The tables of latents [B, 16, T, H, W], on their device."""
    _, _, frames, height, width = latents.shape
    return _rope((frames, height // 2, width // 2), latents.device)


@cache
def _rope(grid: tuple[int, int, int], device: torch.device) -> Rope:
    cos, sin = rope_table(grid, TINY.dit.rope_dims, TINY.dit.rope_theta)
    return cos.to(device), sin.to(device)


def guidance_at(sigma: Tensor, scale: Tensor) -> Tensor:
    """The scale [B] that counts at sigma [B]: 1 where little noise is left (arXiv 2404.07724).

    The picture tells there what its caption says, so that guidance would only exaggerate the errors of both
    predictions: stars lose their shape.
    """
    return torch.where(sigma >= GUIDED_FROM, scale, 1.0)


def guided(
    denoiser: Denoiser, x: Tensor, sigma: Tensor, texts: Texts, empty: Texts, rope: Rope, scale: Tensor
) -> Tensor:
    """Classifier-free guidance in an interval: ``v_empty + s (v_text - v_empty)``, s = `guidance_at` [B].

    empty has one row.
    """
    v_empty = denoiser(x, sigma, empty, rope)
    v_text = denoiser(x, sigma, texts, rope)
    out: Tensor = v_empty + guidance_at(sigma, scale).view(-1, 1, 1, 1, 1) * (v_text - v_empty)
    return out


@torch.no_grad()
def sample(
    vae: CausalVAE,
    denoiser: Denoiser,
    texts: Texts,
    empty: Texts,
    *,
    scale: float,
    bucket: Bucket,
    seed: int = 0,
) -> Tensor:
    """Videos [B, 3, F, H, W] in [-1, 1]: embedded guidance where the denoiser has it, else classifier-free.

    Video i starts from the noise of seed + i.
    """
    device = texts.valid.device
    count = len(texts.valid)
    sigmas = make_sigmas(SamplingParams(bucket, seed, num_inference_steps=20))
    noise = torch.cat([initial_noise(bucket, seed + i) for i in range(count)]).to(device)
    rope, scales = rope_for(noise), torch.full((count,), scale, device=device)

    def predict(latents: Tensor, i: int) -> Tensor:
        sigma = sigmas[i].to(device).expand(count)
        with autocast(device):
            if denoiser.dit.guidance_in is None:
                return guided(denoiser, latents, sigma, texts, empty, rope, scales)
            velocity: Tensor = denoiser(latents, sigma, texts, rope, scales)
            return velocity

    latents = denoise(predict, noise, sigmas)
    with autocast(device):
        return vae.decode(latents / vae.config.scaling_factor).float()
