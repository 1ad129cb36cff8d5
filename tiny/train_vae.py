"""Stage 1: the causal VAE, on clips drawn anew for every step.

`python -m tiny.train_vae RUN --minutes 6` writes RUN/vae.safetensors; run again, it goes on from there. On a
CPU begin with `--cut-outs 1`: pieces of clips around the things are a seventh of the work and hold all that
is hard.

What is saved has the latents' mean and spread folded in: `latent * scaling_factor` has mean 0 and variance 1
in every channel, which is what the DiT expects to see.
"""

import argparse
import copy
import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from hyvideo_rt.models.vae import CausalVAE
from tiny.networks import exists, load, new_vae, save
from tiny.palette import BACKGROUNDS, COLOURS
from tiny.render import AREAS, render_batch
from tiny.training import Average, autocast, prepare_device, train
from tiny.world import Scene, Split, has_star, path, radius, sample_until

Size = tuple[int, int, int]  # height, width, frames

MAIN: Size = (64, 64, 17)
SIZES: dict[Size, float] = {
    MAIN: 0.6,
    (64, 96, 17): 0.1,
    (96, 64, 17): 0.1,
    (64, 64, 33): 0.1,
    (64, 64, 1): 0.1,
}
CUT_OUT: Size = (32, 32, 9)
JOINED = 0.25  # the share of cut-outs that are put together of two
TWO_THINGS = 0.5  # more than in the world: see `cut_outs`
KL_WEIGHT = 1e-5  # per latent, against a relative error per pixel
L1_WEIGHT = 0.1
WINDOW = 17  # pixels around each, across which contrast is measured
MIN_VARIANCE = 0.02  # of pixels in [-1, 1]; a white shape's edge on pink has 0.04, on black 0.9
FAINT = 0.5  # the share of scenes that are the faintest of FAINTEST_OF
FAINTEST_OF = 4
BRIGHT = 0.35  # the share of scenes that must have something brighter than what is behind it
STARS = 0.35  # the share of scenes that must have one
LATENT_NOISE = 0.35  # at most, of latents of variance 1: shapes are to differ by more than a DiT's errors
START_LOG_VARIANCE = -6.0
FOLD_CLIPS = 64


def clips(rng: Random, split: Split, count: int, size: Size, device: torch.device) -> Tensor:
    """Newly drawn clips [count, 3, F, H, W] in [-1, 1]."""
    return render_batch([draw_scene(rng, split) for _ in range(count)], *size, device)


def draw_scene(rng: Random, split: Split) -> Scene:
    """A scene of the world, more often than there one with something small and pale, something bright or a
    star: those are lost first.
    """
    candidates = FAINTEST_OF if rng.random() < FAINT else 1
    wanted = [is_so for is_so, share in ((has_bright, BRIGHT), (has_star, STARS)) if rng.random() < share]
    return min((sample_until(wanted, rng, split, TWO_THINGS) for _ in range(candidates)), key=visibility)


def has_bright(scene: Scene) -> bool:
    """Whether one of its things has more of every colour than the background: white ones, or any on black."""
    behind = BACKGROUNDS[scene.background]
    return any(
        all(ours > theirs for ours, theirs in zip(COLOURS[thing.colour], behind, strict=True))
        for thing in scene.things
    )


def visibility(scene: Scene) -> float:
    """Of its faintest thing: RGB distance to the background, 0 to 442, times the root of the frame's share
    that it covers. Of equal radius, stars and triangles cover half as much as circles and squares.
    """
    behind = BACKGROUNDS[scene.background]
    return min(
        math.dist(COLOURS[thing.colour], behind) * radius(thing, 1, 1) * math.sqrt(AREAS[thing.shape])
        for thing in scene.things
    )


def cut_outs(rng: Random, split: Split, count: int, device: torch.device) -> Tensor:
    """Pieces of clips of the main size [count, 3, 9, 32, 32], the share JOINED of them put together of two.

    Pieces of one clip show one thing; a VAE that sees only those keeps the colour of the whole picture, in
    the statistics of its group norms, instead of the colour of each place. But seams are edges too, and what
    is spent on them is lost to shapes.
    """
    scenes = [draw_scene(rng, split) for _ in range(count)]
    whole = render_batch(scenes, *MAIN, device)
    pieces = [_cut_out(rng, scene, clip) for scene, clip in zip(scenes, whole, strict=True)]
    return torch.stack(
        [_joined(rng, piece, rng.choice(pieces)) if rng.random() < JOINED else piece for piece in pieces]
    )


def _cut_out(rng: Random, scene: Scene, clip: Tensor) -> Tensor:
    """A piece of the clip around one of its things."""
    height, width, frames = CUT_OUT
    first = rng.randrange(MAIN[2] - frames + 1)
    centre = path(rng.choice(scene.things), *MAIN)[first + frames // 2]
    left, top = (
        min(max(round(at + rng.uniform(-0.75, 0.75) * side / 2 - side / 2), 0), whole - side)
        for at, side, whole in zip(centre, (width, height), (MAIN[1], MAIN[0]), strict=True)
    )
    return clip[:, first : first + frames, top : top + height, left : left + width]


def _joined(rng: Random, piece: Tensor, other: Tensor) -> Tensor:
    """The piece beside or above the other one, cut at a random place."""
    axis = rng.choice((2, 3))
    at = rng.randrange(8, 25)
    return torch.cat((piece.narrow(axis, 0, at), other.narrow(axis, at, CUT_OUT[0] - at)), axis)


@torch.no_grad()
def start_quiet(vae: CausalVAE) -> None:
    """Latents start almost free of noise: at variance 1 nothing gets through for hundreds of steps."""
    assert vae.quant_conv.bias is not None
    vae.quant_conv.bias[vae.config.latent_channels :] = START_LOG_VARIANCE


def local_variance(video: Tensor) -> Tensor:
    """Of the pixels around each one in its frame: [B, C, F, H, W] to [B, 1, F, H, W], mean over channels."""
    mean, square = _window_mean(torch.cat((video, video.square()), dim=1)).chunk(2, dim=1)
    return (square - mean.square()).clamp(min=0).mean(dim=1, keepdim=True)


def _window_mean(x: Tensor) -> Tensor:
    """Over WINDOW x WINDOW pixels, first down, then across: 2 x 17 sums for each pixel instead of 17 x 17."""
    side = WINDOW // 2
    for window, pad in (((1, WINDOW, 1), (0, side, 0)), ((1, 1, WINDOW), (0, 0, side))):
        x = F.avg_pool3d(x, window, stride=1, padding=pad, count_include_pad=False)
    return x


def relative_loss(decoded: Tensor, video: Tensor) -> Tensor:
    """Squared and absolute error in units of the contrast around each pixel."""
    error = (decoded - video) * (local_variance(video) + MIN_VARIANCE).rsqrt()
    return error.square().mean() + L1_WEIGHT * error.abs().mean()


def vae_loss(vae: CausalVAE, video: Tensor) -> Tensor:
    """What is lost of a video through noisy latents, and their divergence from a normal distribution."""
    mean, log_variance = vae.encode(video).float().chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    level = LATENT_NOISE / vae.config.scaling_factor * torch.rand(len(z), 1, 1, 1, 1, device=z.device)
    decoded = vae.decode(z + level * torch.randn_like(z)).float()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return relative_loss(decoded, video) + KL_WEIGHT * divergence.mean()


@torch.no_grad()
def psnr(vae: CausalVAE, video: Tensor) -> Tensor:
    """dB of each clip [B], pixels 0..1: the posterior's mean, decoded and clamped."""
    decoded = vae.decode(vae.encode(video).chunk(2, dim=1)[0])
    mse = F.mse_loss(decoded.float().clamp(-1, 1), video, reduction="none").mean(dim=(1, 2, 3, 4)) / 4
    return -10 * torch.log10(mse)


@torch.no_grad()
def folded(vae: CausalVAE, videos: Iterator[Tensor]) -> CausalVAE:
    """A copy; over `videos`, its latents times the scaling factor have mean 0 and variance 1 per channel."""
    vae = copy.deepcopy(vae)
    means = torch.cat(
        [vae.encode(video).float().chunk(2, dim=1)[0].transpose(0, 1).flatten(1) for video in videos], 1
    )
    centre, spread = means.mean(dim=1), means.std(dim=1) * vae.config.scaling_factor
    latents = vae.config.latent_channels
    encode, decode = vae.quant_conv, vae.post_quant_conv
    assert encode.bias is not None
    assert decode.bias is not None
    decode.bias += decode.weight.flatten(1) @ centre
    decode.weight *= spread.view(1, -1, 1, 1, 1)
    encode.weight[:latents] /= spread.view(-1, 1, 1, 1, 1)
    encode.bias[:latents] = (encode.bias[:latents] - centre) / spread
    encode.bias[latents:] -= 2 * spread.log()
    return vae


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--batch", type=int, default=16, help="clips, or half the cut-outs, per step (16)")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--cut-outs", type=float, default=0.0, help="their share of the steps, 0 to 1 (0)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0, help="of weights and clips: another for each run (0)")
    args = parser.parse_args()
    train_vae(
        args.run,
        torch.device(args.device),
        minutes=args.minutes,
        batch=args.batch,
        learning_rate=args.learning_rate,
        cut_out_share=args.cut_outs,
        seed=args.seed,
    )


def train_vae(
    run: Path,
    device: torch.device,
    *,
    minutes: float,
    batch: int,
    learning_rate: float,
    cut_out_share: float = 0.0,
    seed: int = 0,
) -> None:
    prepare_device(device)
    rng = Random(seed)
    vae = new_vae(seed)
    start_quiet(vae)
    if exists(run, "vae"):
        load(run, "vae", vae)
    vae = vae.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    average = Average(vae, decay=0.998)
    heldout = clips(Random(1), "heldout", 4, MAIN, device)

    def draw() -> Tensor:
        if rng.random() < cut_out_share:
            return cut_outs(rng, "train", 2 * batch, device)
        size = rng.choices(list(SIZES), list(SIZES.values()))[0]
        torch.backends.cudnn.benchmark = size == MAIN  # a search for the others would not pay
        return clips(rng, "train", _batch_for(size, batch), size, device)

    def step() -> tuple[Tensor, int]:
        video = draw()
        one_frame = video.shape[2] == 1  # oneDNN's bf16 gradients are then NaN (torch 2.13)
        with nullcontext() if one_frame else autocast(device):
            return vae_loss(vae, video), len(video)

    def note() -> str:
        with autocast(device):
            return f"PSNR {float(psnr(average.module, heldout).mean()):.2f} dB"

    def save_folded() -> None:
        fold = (clips(Random(i), "train", batch, MAIN, device) for i in range(math.ceil(FOLD_CLIPS / batch)))
        save(run, "vae", folded(average.module, fold))

    train(
        vae, average, lambda: step, minutes=minutes, learning_rate=learning_rate, save=save_folded, note=note
    )


def _batch_for(size: Size, batch: int) -> int:
    """About as many pixels as `batch` clips of the main size, at most four times as many clips."""
    return max(1, min(4 * batch, batch * math.prod(MAIN) // math.prod(size)))


if __name__ == "__main__":
    main()
