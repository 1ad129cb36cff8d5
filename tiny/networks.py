"""The tiny model's networks as they are trained, and their checkpoints.

A checkpoint folder holds one file per stage: `vae`, `teacher` (DiT and both text encoders, guided by running
twice) and `student` (the same with embedded guidance). Each has the averaged weights; beside the last two,
`*-raw` has those of the last step, from which training goes on. All are fp16: the largest file has 12 MB.
"""

import re
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hyvideo_rt.config import MODELS, DiTConfig
from hyvideo_rt.errors import WeightsError
from hyvideo_rt.models.clip import ClipTextEncoder
from hyvideo_rt.models.dit import HunyuanVideoDiT, Rope
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.tokenizers import VIDEO_TEMPLATE
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.sampling import TIMESTEPS
from tiny.texts import Texts

TINY = MODELS["tiny"]
SKIPPED_LAYERS = 2  # of the LLM: its states are taken before them
CLOSED = re.compile(r"(_mod|\.modulation)\.linear\.|adaLN_modulation\.1\.|final_layer\.linear\.")
GUIDANCE = "dit.guidance_in."  # names of the weights that the student has and the teacher has not


class Denoiser(nn.Module):
    """Both text encoders and the DiT: from token ids and noisy latents to the velocity ``noise - video``."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.llm = LlamaEncoder(TINY.llm, SKIPPED_LAYERS)
        self.clip = ClipTextEncoder(TINY.clip)
        self.dit = HunyuanVideoDiT(config)

    def forward(
        self, x: Tensor, sigma: Tensor, texts: Texts, rope: Rope, guidance: Tensor | None = None
    ) -> Tensor:
        """x [B, 16, T, H, W] noisy latents at sigma [B]; the velocity like x, fp32.

        texts have B rows, or B / n of them, which are then read once for every n-th part of x. guidance [B]
        as users give it, 6.0 for one, for a DiT that embeds it.
        """
        times = len(x) // len(texts.valid)
        conditioning = self.dit.condition(
            TIMESTEPS * sigma,
            self.llm(texts.llm_ids)[:, VIDEO_TEMPLATE.crop_start :].repeat(times, 1, 1),
            self.clip(texts.clip_ids).repeat(times, 1),
            None if guidance is None else TIMESTEPS * guidance,
            texts.valid.repeat(times),
        )
        velocity: Tensor = self.dit(x, conditioning, rope)
        return velocity


def new_vae(seed: int = 0) -> CausalVAE:
    torch.manual_seed(seed)
    return CausalVAE(TINY.vae)


def new_denoiser(seed: int = 0, *, guidance_embed: bool = True) -> Denoiser:
    """Random weights, none of them zero."""
    torch.manual_seed(seed)
    return Denoiser(replace(TINY.dit, guidance_embed=guidance_embed))


def start_closed(denoiser: Denoiser) -> None:
    """Zero all modulations, so that every block starts as the identity, and the output (arXiv 2212.09748)."""
    for name, parameter in denoiser.dit.named_parameters():
        if CLOSED.search(name):
            nn.init.zeros_(parameter)


def save(folder: Path, stage: str, module: nn.Module) -> None:
    """Written beside its target and moved into place whole: a run may end at any moment."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half().contiguous().cpu() for name, tensor in module.state_dict().items()}
    partial = folder / f".{stage}.partial"
    save_file(tensors, partial)
    partial.rename(_path(folder, stage))


def load(folder: Path, stage: str, module: nn.Module, *, new: str | None = None) -> None:
    """Every tensor of the module but those whose names start with `new`."""
    path = _path(folder, stage)
    if not path.is_file():
        raise WeightsError(f"got no {path}, expected the checkpoint of that stage\n  train it first")
    missing, unexpected = module.load_state_dict(load_file(path), strict=False)
    missing = [name for name in missing if new is None or not name.startswith(new)]
    if missing or unexpected:
        raise WeightsError(
            f"{path}: {len(missing)} tensors are missing, {len(unexpected)} unexpected, expected none\n"
            f"  it is of another stage or of an older architecture: train it again"
        )


def exists(folder: Path, stage: str) -> bool:
    return _path(folder, stage).is_file()


def is_newer(folder: Path, stage: str, *, than: str) -> bool:
    """Whether both are there and the stage was saved last."""
    if not (exists(folder, stage) and exists(folder, than)):
        return False
    return _path(folder, stage).stat().st_mtime_ns > _path(folder, than).stat().st_mtime_ns


def _path(folder: Path, stage: str) -> Path:
    return folder / f"{stage}.safetensors"
