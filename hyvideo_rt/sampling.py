"""Flow matching: the noise schedule, the initial noise and the Euler loop.

``x_sigma = (1 - sigma) * video + sigma * noise``, the network predicts ``v = noise - video``, so one step is
``x <- x + (sigma_next - sigma) * v``. Latents, sigmas and timesteps are fp32 throughout.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.errors import InvalidRequest, NumericalError

TIMESTEPS = 1000  # the network's timestep is TIMESTEPS * sigma
MAX_SEED = 2**63 - 1

Predict = Callable[[Tensor, int], Tensor]  # latents, step index -> velocity
OnStep = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True)
class SamplingParams:
    """One video, decided: its size, its seed and how it is sampled. Raises InvalidRequest.

    guidance_scale is the embedded guidance of distilled weights; true_cfg_scale > 1 runs the network twice
    a step, with the prompt and with negative_prompt. flow_reverse=False runs sigma from 0 to 1, as the
    original does without `--flow-reverse`: the published weights need True.
    """

    bucket: Bucket
    seed: int
    num_inference_steps: int = 50
    guidance_scale: float = 6.0
    true_cfg_scale: float = 1.0
    negative_prompt: str = ""
    flow_shift: float = 7.0
    flow_reverse: bool = True

    def __post_init__(self) -> None:
        _check_at_least("steps", self.num_inference_steps, 1)
        _check_at_least("seed", self.seed, 0)
        _check_at_least("guidance scale", self.guidance_scale, 0)
        _check_at_least("CFG scale", self.true_cfg_scale, 0)
        if self.seed > MAX_SEED:
            raise InvalidRequest(f"got seed {self.seed}; expected at most {MAX_SEED}")
        if not (math.isfinite(self.flow_shift) and self.flow_shift > 0):
            raise InvalidRequest(
                f"got flow shift {self.flow_shift}; expected a finite number above 0\n  the default is 7.0"
            )

    @property
    def uses_cfg(self) -> bool:
        return self.true_cfg_scale > 1


def resolve_seeds(seed: int | None, count: int) -> list[int]:
    """One seed per video: seed, seed + 1, ...; None draws each from 0..1,000,000, as the original does."""
    _check_at_least("video count", count, 1)
    if seed is None:
        return [random.SystemRandom().randint(0, 1_000_000) for _ in range(count)]
    return [seed + i for i in range(count)]


def make_sigmas(params: SamplingParams) -> Tensor:
    """The n + 1 noise levels, fp32, from 1 to 0: ``shift * u / (1 + (shift - 1) * u)`` for u = 1 - i / n."""
    u = torch.linspace(1, 0, params.num_inference_steps + 1)
    sigmas = params.flow_shift * u / (1 + (params.flow_shift - 1) * u)
    return sigmas if params.flow_reverse else 1 - sigmas


def initial_noise(bucket: Bucket, seed: int, channels: int = 16) -> Tensor:
    """Standard normal latents [1, channels, T, H, W], drawn on the CPU: a seed is one noise everywhere."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, channels, *bucket.latent_shape, generator=generator)


def denoise(predict: Predict, latents: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
    """All Euler steps over latents [B, C, T, H, W] fp32; predict(latents, i) is the velocity at sigmas[i].

    Raises NumericalError after the first step that leaves NaN or infinity.
    """
    steps = len(sigmas) - 1
    deltas = sigmas.diff().tolist()
    for i, delta in enumerate(deltas):
        latents = latents + delta * predict(latents, i).float()
        if not latents.isfinite().all():
            raise NumericalError(
                f"got NaN or infinite latents after step {i + 1} of {steps}; expected finite values\n"
                f"  try --precision bf16 or fp32; if it stays, verify the weights"
            )
        if on_step:
            on_step(i + 1, steps)
    return latents


def _check_at_least(name: str, value: float, minimum: float) -> None:
    if not (math.isfinite(value) and value >= minimum):
        raise InvalidRequest(f"got {name} {value}; expected a number of at least {minimum}")
