"""Stage 3: the embedded guidance, distilled from classifier-free guidance.

`python -m tiny.distill RUN --minutes 5` needs RUN/vae and RUN/teacher and writes RUN/student.safetensors; run
again, it goes on from there, or from the teacher if that has been trained since. Where guidance counts, the
student learns the frozen teacher's, `tiny.sample.guided`, for scales s from 1 to 10, with ``1000 s`` as its
second embedded number, so that one run does the work of two. Below, it goes on learning from the clips
themselves, as the teacher did: there shapes are made, and it may well come to make them better.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.sampling import TIMESTEPS
from tiny.latents import MAIN, Pool
from tiny.networks import GUIDANCE, Denoiser, exists, is_newer, load, new_denoiser, save
from tiny.sample import GUIDED_FROM, guidance_at, guided, rope_for
from tiny.texts import Texts, Tokenizers
from tiny.train_dit import LEVELS, SHIFT, draw, evenly, run_stage, shifted
from tiny.training import (
    Average,
    Step,
    autocast,
    chooser,
    compile_blocks,
    eager_unless,
    plain_attention,
    train,
)

SCALES = (1.0, 10.0)
START = GUIDED_FROM / (SHIFT - (SHIFT - 1) * GUIDED_FROM)  # `shifted` makes GUIDED_FROM of it
EMPTY_CAPTIONS = 0.02  # guided nowhere, but still a video


def distillation_loss(
    student: Denoiser, teacher: Denoiser, clips: Tensor, texts: Texts, empty: Texts
) -> Tensor:
    """clips [B, 16, T, H, W] of variance 1, each at one noise level where guidance counts and at one below;
    empty has one row.

    Errors count relative to their scale, with which the target grows: else the largest scales drown the rest.
    """
    count = len(clips)
    sigma = draw_levels(count, clips.device)
    scale = torch.empty_like(sigma).uniform_(*SCALES)
    clips = clips.repeat(2, 1, 1, 1, 1)
    noise = torch.randn_like(clips)
    x = torch.lerp(clips, noise, sigma.view(-1, 1, 1, 1, 1))
    rope = rope_for(clips)
    target = noise - clips
    with torch.no_grad():
        target[:count] = guided(teacher, x[:count], sigma[:count], texts, empty, rope, scale[:count])
    part = guidance_at(sigma, scale).view(-1, 1, 1, 1, 1)
    return F.mse_loss(student(x, sigma, texts, rope, scale) / part, target / part)


def draw_levels(count: int, device: torch.device) -> Tensor:
    """Noise levels [2 B]: B from GUIDED_FROM up, then B below, on both sides as densely as sampling is."""
    return torch.cat(
        (shifted(START + (1 - START) * evenly(count, device)), shifted(START * evenly(count, device)))
    )


def student_of(run: Path) -> Denoiser:
    """Its student of an earlier run; else the teacher with the embedded guidance of a student that another
    teacher had, or with one that does nothing yet. At guidance 1 it then does what the teacher does.
    """
    student = new_denoiser(1)
    known = exists(run, "student-raw")
    if known:
        load(run, "student-raw", student)
    if is_newer(run, "student-raw", than="teacher"):
        return student
    load(run, "teacher", student, new=GUIDANCE)
    embedding, vector = student.dit.guidance_in, student.dit.vector_in.out_layer
    assert embedding is not None
    assert isinstance(vector, nn.Linear)
    if not known:
        last = embedding.mlp[2]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    with torch.no_grad():
        vector.bias.sub_(embedding(torch.tensor([TIMESTEPS]))[0])  # as resume.teacher_of adds it
    return student


def main() -> None:
    run_stage(__doc__ or "", distill, (1.0, 3.0, 6.0, 9.0), minutes=5.0, clips=50_000, rate=1e-3, seed=1)


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
    torch.manual_seed(seed)
    teacher = new_denoiser(guidance_embed=False).requires_grad_(False).eval()
    load(run, "teacher", teacher)
    teacher.to(device)
    student = student_of(run).to(device)
    average = Average(student, decay=0.998)
    main_shape = Bucket(*MAIN).latent_shape
    empty = Tokenizers().encode([""]).to(device)
    if compiled:
        compile_blocks(student)
        compile_blocks(teacher)

    def step(pool: Pool) -> tuple[Tensor, int]:
        clips, texts = draw(pool, batch, empty, EMPTY_CAPTIONS)
        with autocast(device), plain_attention(device), eager_unless(clips.shape[2:] == main_shape):
            return distillation_loss(student, teacher, clips, texts, empty), LEVELS * len(clips)

    steps: dict[Step, float] = {partial(step, pool): len(pool.latents) for pool in pools}

    def save_both() -> None:
        save(run, "student-raw", student)
        save(run, "student", average.module)

    train(
        student,
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
