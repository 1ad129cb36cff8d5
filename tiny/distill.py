"""Stage 3: the embedded guidance, distilled from classifier-free guidance.

`python -m tiny.distill RUN --minutes 3` needs RUN/vae and RUN/teacher and writes RUN/student.safetensors; run
again, it goes on from there. The student learns ``v_empty + s (v_text - v_empty)`` of the frozen teacher for
scales s from 1 to 10, with ``1000 s`` as its second embedded number, so that one run does the work of two.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny.latents import Pool, build_pools
from tiny.networks import GUIDANCE, Denoiser, exists, load, new_denoiser, save
from tiny.sample import guided, rope_for
from tiny.texts import Texts, Tokenizers
from tiny.train_dit import check, draw, draw_sigmas, load_vae
from tiny.training import Average, autocast, compile_blocks, eager_unless, prepare_device, train

SCALES = (1.0, 10.0)
EMPTY_CAPTIONS = 0.02  # guided nowhere, but still a video


def distillation_loss(
    student: Denoiser, teacher: Denoiser, clips: Tensor, texts: Texts, empty: Texts
) -> Tensor:
    """clips [B, 16, T, H, W] of variance 1; empty has one row."""
    sigma = draw_sigmas(len(clips), clips.device)
    x = torch.lerp(clips, torch.randn_like(clips), sigma.view(-1, 1, 1, 1, 1))
    scale = torch.empty_like(sigma).uniform_(*SCALES)
    rope = rope_for(clips)
    with torch.no_grad():
        target = guided(teacher, x, sigma, texts, empty, rope, scale)
    return F.mse_loss(student(x, sigma, texts, rope, scale), target)


def student_of(run: Path) -> Denoiser:
    """The teacher with an embedded guidance that does nothing yet, or the student of an earlier run."""
    student = new_denoiser(1)
    if exists(run, "student-raw"):
        load(run, "student-raw", student)
        return student
    load(run, "teacher", student, new=GUIDANCE)
    assert student.dit.guidance_in is not None
    last = student.dit.guidance_in.mlp[2]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return student


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=3.0, help="in all, encoding included (default 3)")
    parser.add_argument("--clips", type=int, default=50_000, help="encoded clips (default 50000)")
    parser.add_argument("--batch", type=int, default=768, help="clips of 64x64x17 per step (default 768)")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--prompts", type=int, default=128, help="judged at the end (default 128)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    device = torch.device(args.device)
    prepare_device(device)
    start = time.perf_counter()
    vae = load_vae(args.run, device)
    pools = build_pools(vae, args.clips, device, seed=args.seed, minutes=args.minutes / 5)
    spent = (time.perf_counter() - start) / 60
    print(f"{sum(len(pool.latents) for pool in pools)} clips encoded in {60 * spent:.0f} s", flush=True)
    student = distill(
        args.run, pools, device, args.minutes - spent, args.batch, args.learning_rate, args.seed, args.compile
    )
    check(vae, student, (1.0, 3.0, 6.0, 9.0), args.prompts)


def distill(
    run: Path,
    pools: Sequence[Pool],
    device: torch.device,
    minutes: float,
    batch: int,
    learning_rate: float,
    seed: int,
    compiled: bool,
) -> Denoiser:
    """The averaged student."""
    rng = Random(seed)
    torch.manual_seed(seed)
    teacher = new_denoiser(guidance_embed=False).requires_grad_(False).eval()
    load(run, "teacher", teacher)
    teacher.to(device)
    student = student_of(run).to(device)
    average = Average(student, decay=0.998)
    empty = Tokenizers().encode([""]).to(device)
    if compiled:
        compile_blocks(student)
        compile_blocks(teacher)

    def step() -> tuple[Tensor, int]:
        clips, texts = draw(pools, rng, batch, empty, EMPTY_CAPTIONS)
        with autocast(device), eager_unless(len(clips) == batch):
            return distillation_loss(student, teacher, clips, texts, empty), len(clips)

    def save_both() -> None:
        save(run, "student-raw", student)
        save(run, "student", average.module)

    train(student, average, step, minutes=minutes, learning_rate=learning_rate, save=save_both)
    return average.module


if __name__ == "__main__":
    main()
