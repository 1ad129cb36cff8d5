"""Training clips as latents with their captions: encoded once, kept on the device, drawn in batches.

Scenes and captions are made by worker processes while the device draws and encodes.
"""

import multiprocessing
import os
import time
from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyvideo_rt.models.tokenizers import VIDEO_TEMPLATE
from hyvideo_rt.models.vae import CausalVAE
from tiny.captions import caption
from tiny.render import render_batch
from tiny.texts import LLM_LENGTH, Texts, Tokenizers
from tiny.training import autocast
from tiny.world import Scene, has_star, sample_until

Size = tuple[int, int, int]  # height, width, frames
Ids = tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]  # LLM [N, 32], valid [N], CLIP [N, 32]

MAIN: Size = (64, 64, 17)
SIZES: dict[Size, float] = {MAIN: 0.79, (64, 96, 17): 0.07, (96, 64, 17): 0.07, (64, 64, 33): 0.07}
CAPTIONS = 8  # of each clip
TWO_THINGS = 0.5  # more than in the world: which attribute is whose takes longest to learn
STARS = 0.35  # the share of scenes that must have one: the shape that is lost most often
CHUNK = 512  # clips that a worker describes at a time
ENCODE_BATCH = 64


@dataclass(frozen=True)
class Pool:
    """Clips of one size: latents [N, 16, T, H, W] of variance 1; captions as ids, 8 rows for each clip."""

    size: Size
    latents: Tensor
    llm_ids: Tensor  # [8 N, 32] without the template's prefix, which is the same for all
    valid: Tensor  # [8 N]
    clip_ids: Tensor  # [8 N, 32]

    def draw(self, count: int, empty: Texts, drop: float) -> tuple[Tensor, Texts]:
        """`count` clips, each with one of its captions or, with probability `drop`, the `empty` one."""
        device = self.latents.device
        clips = torch.randint(len(self.latents), (count,), device=device)
        rows = clips * CAPTIONS + torch.randint(CAPTIONS, (count,), device=device)
        dropped = torch.rand(count, device=device) < drop
        prefix = empty.llm_ids[:, : VIDEO_TEMPLATE.crop_start].expand(count, -1)
        texts = Texts(
            torch.cat((prefix, self.llm_ids[rows].long()), dim=1),
            self.valid[rows].long(),
            self.clip_ids[rows].long(),
        )
        return self.latents[clips].float(), where(dropped, empty, texts)


def where(chosen: Tensor, one: Texts, other: Texts) -> Texts:
    """Row by row: `one`, which may have a single row for all, where `chosen` [B] is true."""
    return Texts(
        torch.where(chosen[:, None], one.llm_ids, other.llm_ids),
        torch.where(chosen, one.valid, other.valid),
        torch.where(chosen[:, None], one.clip_ids, other.clip_ids),
    )


def build_pools(
    vae: CausalVAE,
    num_clips: int,
    device: torch.device,
    *,
    seed: int,
    minutes: float,
    workers: int | None = None,
) -> list[Pool]:
    """`num_clips` clips of the training split in the shares of SIZES, or fewer when the time is out."""
    deadline = time.perf_counter() + 60 * minutes
    sizes = _sizes(seed, -(-num_clips // CHUNK))
    jobs = [(f"{seed} {i}", min(CHUNK, num_clips)) for i in range(len(sizes))]
    found: dict[Size, list[tuple[Tensor, Ids]]] = {}
    context = multiprocessing.get_context("spawn")  # a fork would inherit the state of CUDA
    with context.Pool(workers or max(1, min(14, (os.cpu_count() or 2) - 1))) as pool:
        for size, (scenes, ids) in zip(sizes, pool.imap(describe, jobs), strict=True):
            found.setdefault(size, []).append((_encode(vae, scenes, size, device), ids))
            if time.perf_counter() > deadline:
                break
    return [_pool(size, chunks, device) for size, chunks in found.items()]


def describe(job: tuple[str, int]) -> tuple[list[Scene], Ids]:
    """From a seed and a number, so many scenes and their captions' ids."""
    seed, count = job
    rng = Random(seed)
    scenes = [_draw_scene(rng) for _ in range(count)]
    texts = _tokenizers().encode([caption(scene, rng) for scene in scenes for _ in range(CAPTIONS)])
    prompts = texts.llm_ids[:, VIDEO_TEMPLATE.crop_start :]
    assert prompts.shape[1] == LLM_LENGTH
    return scenes, (_small(prompts), _small(texts.valid), _small(texts.clip_ids))


def _draw_scene(rng: Random) -> Scene:
    return sample_until([has_star] if rng.random() < STARS else [], rng, "train", TWO_THINGS)


@cache
def _tokenizers() -> Tokenizers:
    return Tokenizers()


def _small(ids: Tensor) -> NDArray[np.int16]:
    return ids.numpy().astype(np.int16)


def _sizes(seed: int, count: int) -> list[Size]:
    """The main size first, then at random."""
    return [MAIN, *Random(seed).choices(list(SIZES), list(SIZES.values()), k=count - 1)]


@torch.no_grad()
def _encode(vae: CausalVAE, scenes: list[Scene], size: Size, device: torch.device) -> Tensor:
    """The posterior's means, scaled: [N, 16, T, H, W] fp16."""
    latents = []
    for start in range(0, len(scenes), ENCODE_BATCH):
        video = render_batch(scenes[start : start + ENCODE_BATCH], *size, device)
        with autocast(device):
            mean, _ = vae.encode(video).chunk(2, dim=1)
        latents.append((mean.float() * vae.config.scaling_factor).half())
    return torch.cat(latents)


def _pool(size: Size, chunks: list[tuple[Tensor, Ids]], device: torch.device) -> Pool:
    latents = torch.cat([latents for latents, _ in chunks])
    llm, valid, clip = (
        torch.from_numpy(np.concatenate([ids[i] for _, ids in chunks])).to(device) for i in range(3)
    )
    return Pool(size, latents, llm, valid, clip)
