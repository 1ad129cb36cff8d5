"""Stage 2: the DiT and both text encoders together, by flow matching on the VAE's latents.

`python -m tiny.train_dit RUN --minutes 15` needs RUN/vae.safetensors and writes RUN/teacher.safetensors, a
model for classifier-free guidance; run again, it goes on from there. A noisy clip is ``(1 - sigma) video +
sigma noise``, the target ``noise - video``; one caption in ten is empty.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.models.vae import CausalVAE
from tiny.captions import caption
from tiny.latents import MAIN, Pool, build_pools
from tiny.networks import Denoiser, exists, load, new_denoiser, new_vae, save, start_closed
from tiny.sample import rope_for, sample
from tiny.scores import score_all
from tiny.texts import Texts, Tokenizers
from tiny.training import (
    Average,
    Step,
    autocast,
    chooser,
    compile_blocks,
    eager_unless,
    plain_attention,
    prepare_device,
    train,
)
from tiny.world import sample_scene

EMPTY_CAPTIONS = 0.1
LEVELS = 2  # noise levels at which each clip of a batch is seen: its caption is read once
STILLS = 0.5  # the share of batches that are pictures: colour and shape are learned there at half the cost
STILLS_PER_CLIP = 2  # they take as long as one clip, with the text's tokens
SHIFT = 7.0  # of the noise levels, as in sampling
UNSHIFTED = 0.2  # the share of clips whose noise level is not shifted: fine detail is learned there


def evenly(count: int, device: torch.device) -> Tensor:
    """Random numbers [B], one from each of so many equal parts of 0..1."""
    return (torch.arange(count, device=device) + torch.rand(count, device=device)) / count


def shifted(u: Tensor) -> Tensor:
    """Noise levels with the density of those that sampling visits, of numbers u spread evenly over 0..1."""
    return SHIFT * u / (1 + (SHIFT - 1) * u)


def draw_sigmas(count: int, device: torch.device) -> Tensor:
    """Noise levels [B], evenly spread over the levels that sampling visits, a few over all of 0..1."""
    u = evenly(count, device)
    return torch.where(torch.rand(count, device=device) >= UNSHIFTED, shifted(u), u)


def flow_loss(denoiser: Denoiser, clips: Tensor, texts: Texts) -> Tensor:
    """clips [B, 16, T, H, W] of variance 1, each at LEVELS noise levels."""
    clips = clips.repeat(LEVELS, 1, 1, 1, 1)
    noise = torch.randn_like(clips)
    sigma = draw_sigmas(len(clips), clips.device)
    x = torch.lerp(clips, noise, sigma.view(-1, 1, 1, 1, 1))
    return F.mse_loss(denoiser(x, sigma, texts, rope_for(clips)), noise - clips)


def draw(pool: Pool, batch: int, empty: Texts, drop: float, *, still: bool = False) -> tuple[Tensor, Texts]:
    """Clips of one size, as many tokens as `batch` clips of 64x64x17 have at one noise level each.

    Or, `still`, the first latent frame of more clips: almost the latent of a picture, whose group norms see
    no other frames.
    """
    count = max(1, batch // LEVELS * Bucket(*MAIN).num_tokens // Bucket(*pool.size).num_tokens)
    if not still:
        return pool.draw(count, empty, drop)
    clips, texts = pool.draw(STILLS_PER_CLIP * count, empty, drop)
    return clips[:, :, :1], texts


def check(vae: CausalVAE, denoiser: Denoiser, scales: Sequence[float], num_prompts: int) -> None:
    """Prints the judge's scores of held-out captions at some guidance scales."""
    device = next(denoiser.parameters()).device
    rng = Random(7)
    scenes = [sample_scene(rng, "heldout") for _ in range(num_prompts)]
    tokenizers = Tokenizers()
    texts = tokenizers.encode([caption(scene, rng) for scene in scenes]).to(device)
    empty = tokenizers.encode([""]).to(device)
    for scale in scales:
        start = time.perf_counter()
        videos = sample(vae, denoiser, texts, empty, scale=scale, bucket=Bucket(*MAIN))
        shares = score_all(videos, scenes)
        words = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
        print(f"scale {scale}: {words}  ({time.perf_counter() - start:.1f} s)", flush=True)


def main() -> None:
    run_stage(__doc__ or "", train_dit, (1.0, 2.0, 4.0, 6.0), minutes=15.0, clips=200_000, rate=5e-3, seed=0)


def run_stage(
    description: str,
    stage: Callable[..., Denoiser],
    scales: Sequence[float],
    *,
    minutes: float,
    clips: int,
    rate: float,
    seed: int,
) -> None:
    """The command of a stage that trains on latents: encode clips, train, judge at some guidance scales."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=minutes, help=f"encoding included ({minutes})")
    parser.add_argument("--clips", type=int, default=clips, help=f"encoded clips ({clips})")
    parser.add_argument("--batch", type=int, default=768, help="clips of 64x64x17 per step (768)")
    parser.add_argument("--learning-rate", type=float, default=rate)
    parser.add_argument("--prompts", type=int, default=128, help="judged at the end (128)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="of blocks, on a CPU")
    parser.add_argument("--seed", type=int, default=seed)
    args = parser.parse_args()
    device = torch.device(args.device)
    prepare_device(device)
    start = time.perf_counter()
    vae = load_vae(args.run, device)
    pools = build_pools(vae, args.clips, device, seed=args.seed, minutes=args.minutes / 6)
    spent = (time.perf_counter() - start) / 60
    print(f"{sum(len(pool.latents) for pool in pools)} clips encoded in {60 * spent:.0f} s", flush=True)
    compiled = args.compile and device.type == "cpu"
    trained = stage(
        args.run, pools, device, args.minutes - spent, args.batch, args.learning_rate, args.seed, compiled
    )
    check(vae, trained, scales, args.prompts)


def load_vae(run: Path, device: torch.device) -> CausalVAE:
    vae = new_vae()
    load(run, "vae", vae)
    vae.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return vae.requires_grad_(False).eval()


def train_dit(
    run: Path,
    pools: Sequence[Pool],
    device: torch.device,
    minutes: float,
    batch: int,
    learning_rate: float,
    seed: int,
    compiled: bool,
) -> Denoiser:
    """The averaged teacher."""
    denoiser = new_denoiser(seed, guidance_embed=False)
    start_closed(denoiser)
    if exists(run, "teacher-raw"):
        load(run, "teacher-raw", denoiser)
    denoiser.to(device)
    average = Average(denoiser, decay=0.999)
    main_shape = Bucket(*MAIN).latent_shape
    frequent = (main_shape, (1, *main_shape[1:]))
    empty = Tokenizers().encode([""]).to(device)
    if compiled:
        compile_blocks(denoiser)

    def step(pool: Pool, still: bool) -> tuple[Tensor, int]:
        clips, texts = draw(pool, batch, empty, EMPTY_CAPTIONS, still=still)
        with autocast(device), plain_attention(device), eager_unless(clips.shape[2:] in frequent):
            return flow_loss(denoiser, clips, texts), LEVELS * len(clips)

    steps: dict[Step, float] = {
        partial(step, pool, still): len(pool.latents) * share
        for pool in pools
        for still, share in ((False, 1 - STILLS), (True, STILLS))
    }

    def save_both() -> None:
        save(run, "teacher-raw", denoiser)
        save(run, "teacher", average.module)

    train(
        denoiser,
        average,
        chooser(steps, Random(seed)),
        minutes=minutes,
        learning_rate=learning_rate,
        save=save_both,
        graphs=device.type == "cuda",
    )
    return average.module


if __name__ == "__main__":
    main()
