"""Stage 4: the VAE's decoder once more, on latents as the student makes them.

`python -m tiny.refine RUN --minutes 5` needs RUN/vae and RUN/student and writes RUN/vae.safetensors again. A
decoder that has only seen latents of true clips makes a blot of a star whose latent is a little wrong. Here
latents get as much noise as sampling has some steps before its end, the student takes it out in those steps,
and the decoder learns to make the true clip of what that leaves. What latents mean stays as it is.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.sampling import SamplingParams, denoise, make_sigmas
from tiny.captions import caption
from tiny.latents import MAIN, Size
from tiny.networks import Denoiser, load, new_denoiser, new_vae, save
from tiny.render import render_batch
from tiny.sample import rope_for
from tiny.texts import Texts, Tokenizers
from tiny.train_vae import clips, draw_scene, psnr, relative_loss
from tiny.training import Average, autocast, prepare_device, train
from tiny.world import Scene, path

SIZES: dict[Size, float] = {MAIN: 0.8, (64, 96, 17): 0.1, (96, 64, 17): 0.1}
PREFIXES = {2: 0.6, 3: 0.2, 5: 0.2}  # latent frames that are decoded, from the first; fewer cost less
PIECE = 5  # latents on each side of a piece around a thing; a frame has 8 or 12
PIECES = 0.75  # the share of steps that see pieces only
STEPS = 20  # of a video by default
LAST_STEPS = 4  # at most so many of them are the student's


def piece_of(rng: Random, scene: Scene, size: Size, latents: Tensor, clip: Tensor) -> tuple[Tensor, Tensor]:
    """latents [16, T, H, W] and clip [3, F, 8 H, 8 W] of a scene's beginning, both cut out around one of its
    things: [16, T, 5, 5] and [3, F, 40, 40].
    """
    height, width, _ = size
    centre = path(rng.choice(scene.things), *size)[clip.shape[1] // 2]
    left, top = (
        min(max(round(at / 8 - PIECE / 2 + rng.uniform(-1, 1)), 0), whole // 8 - PIECE)
        for at, whole in zip(centre, (width, height), strict=True)
    )
    pixels = clip[:, :, 8 * top : 8 * (top + PIECE), 8 * left : 8 * (left + PIECE)]
    return latents[:, :, top : top + PIECE, left : left + PIECE], pixels


@dataclass(frozen=True)
class Encoded:
    """Scenes of one size and their latents [N, 16, T, H, W] of variance 1."""

    size: Size
    scenes: list[Scene]
    latents: Tensor


@torch.no_grad()
def redone(student: Denoiser, latents: Tensor, texts: Texts, steps: int) -> Tensor:
    """latents of variance 1 with the noise that is left before sampling's last `steps`, after those steps.

    Guidance does not count there (`tiny.sample.guidance_at`).
    """
    sigmas: Tensor = make_sigmas(SamplingParams(Bucket(*MAIN), 0, num_inference_steps=STEPS))[-1 - steps :]
    rope, ones = rope_for(latents), torch.ones(len(latents), device=latents.device)
    noisy = torch.lerp(latents, torch.randn_like(latents), float(sigmas[0]))
    return denoise(lambda x, i: student(x, sigmas[i] * ones, texts, rope, ones), noisy, sigmas)


@torch.no_grad()
def encode(vae: CausalVAE, rng: Random, count: int, batch: int, minutes: float) -> list[Encoded]:
    """About `count` new clips, or fewer when the time is out; every size has some."""
    deadline = time.perf_counter() + 60 * minutes
    device = vae.quant_conv.weight.device
    pools = []
    for size, share in SIZES.items():
        scenes: list[Scene] = []
        latents = []
        while not scenes or (len(scenes) < share * count and time.perf_counter() < deadline):
            new = [draw_scene(rng, "train") for _ in range(batch)]
            with autocast(device):
                mean, _ = vae.encode(render_batch(new, *size, device)).chunk(2, dim=1)
            scenes += new
            latents.append(mean.float() * vae.config.scaling_factor)
        pools.append(Encoded(size, scenes, torch.cat(latents)))
    return pools


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=5.0, help="encoding included (5)")
    parser.add_argument("--clips", type=int, default=1536, help="encoded clips (1536)")
    parser.add_argument("--batch", type=int, default=8, help="clips, or half the pieces, per step (8)")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0, help="of clips: another for each run (0)")
    args = parser.parse_args()
    refine(
        args.run,
        torch.device(args.device),
        minutes=args.minutes,
        num_clips=args.clips,
        batch=args.batch,
        learning_rate=args.learning_rate,
        seed=args.seed,
    )


def refine(
    run: Path,
    device: torch.device,
    *,
    minutes: float,
    num_clips: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> None:
    prepare_device(device)
    torch.manual_seed(seed)
    start = time.perf_counter()
    rng, tokenizers = Random(seed), Tokenizers()
    vae, student = new_vae(), new_denoiser().requires_grad_(False).eval()
    load(run, "vae", vae)
    load(run, "student", student)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    vae = vae.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    student.to(device)
    pools = encode(vae, rng, num_clips, batch, minutes / 6)
    spent = (time.perf_counter() - start) / 60
    print(f"{sum(len(pool.scenes) for pool in pools)} clips encoded in {60 * spent:.0f} s", flush=True)
    average = Average(vae, decay=0.995)
    heldout = clips(Random(1), "heldout", 4, MAIN, device)

    def latents_of(pool: Encoded, rows: Sequence[int]) -> Tensor:
        latents, steps = pool.latents[rows], rng.randint(0, LAST_STEPS)
        if steps == 0:
            return latents
        texts = tokenizers.encode([caption(pool.scenes[row], rng) for row in rows]).to(device)
        return redone(student, latents, texts, steps)

    def step() -> tuple[Tensor, int]:
        pool = rng.choices(pools, list(SIZES.values()))[0]
        prefix = rng.choices(list(PREFIXES), list(PREFIXES.values()))[0]
        in_pieces = rng.random() < PIECES
        rows = rng.choices(range(len(pool.scenes)), k=2 * batch if in_pieces else batch)
        scenes = [pool.scenes[row] for row in rows]
        video = render_batch(scenes, *pool.size, device)[:, :, : 4 * prefix - 3]
        with autocast(device):
            latents = latents_of(pool, rows)[:, :, :prefix] / vae.config.scaling_factor
            if in_pieces:
                pieces = map(partial(piece_of, rng), scenes, repeat(pool.size), latents, video)
                latents, video = map(torch.stack, zip(*pieces, strict=True))
            return relative_loss(vae.decode(latents).float(), video), len(rows)

    def note() -> str:
        with autocast(device):
            return f"PSNR {float(psnr(average.module, heldout).mean()):.2f} dB"

    train(
        vae,
        average,
        lambda: step,
        minutes=minutes - spent,
        learning_rate=learning_rate,
        save=lambda: save(run, "vae", average.module),
        note=note,
    )


if __name__ == "__main__":
    main()
