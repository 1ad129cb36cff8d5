"""The tiny model's networks as they are trained, and their checkpoints.

A checkpoint folder holds one file per stage: `vae`, `teacher` (DiT and both text encoders, guided by running
twice) and `student` (the same with embedded guidance). Each has the averaged weights, and beside it `*-raw`
those of the last step, from which training goes on. All are fp16: the largest file has 12 MB.
"""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hyvideo_rt.config import MODELS, DiTConfig
from hyvideo_rt.errors import WeightsError
from hyvideo_rt.kernels.rope import rope_table
from hyvideo_rt.models.clip import ClipTextEncoder
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.tokenizers import VIDEO_TEMPLATE
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.sampling import TIMESTEPS

TINY = MODELS["tiny"]
SKIPPED_LAYERS = 2  # of the LLM: its states are taken before them


class Denoiser(nn.Module):
    """Both text encoders and the DiT: everything between token ids and a velocity."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.llm = LlamaEncoder(TINY.llm, SKIPPED_LAYERS)
        self.clip = ClipTextEncoder(TINY.clip)
        self.dit = HunyuanVideoDiT(config)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        llm_ids: Tensor,
        valid_text: Tensor,
        clip_ids: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """The velocity [B, 16, T, H, W] at noisy latents x like it and noise levels sigma [B].

        llm_ids [B, 95 + L] with the template around the prompt, valid_text [B] of the L; clip_ids [B, M];
        guidance [B] as users give it, 6.0 for one, for a DiT that embeds it.
        """
        _, _, frames, height, width = x.shape
        cos, sin = rope_table(
            (frames, height // 2, width // 2), self.dit.config.rope_dims, self.dit.config.rope_theta
        )
        conditioning = self.dit.condition(
            TIMESTEPS * sigma,
            self.llm(llm_ids)[:, VIDEO_TEMPLATE.crop_start :],
            self.clip(clip_ids),
            None if guidance is None else TIMESTEPS * guidance,
            valid_text,
        )
        velocity: Tensor = self.dit(x, conditioning, (cos.to(x.device), sin.to(x.device)))
        return velocity


def new_vae(seed: int = 0) -> CausalVAE:
    torch.manual_seed(seed)
    return CausalVAE(TINY.vae)


def new_denoiser(seed: int = 0, *, guidance_embed: bool = True) -> Denoiser:
    """Random weights, none of them zero."""
    torch.manual_seed(seed)
    return Denoiser(dit_config(guidance_embed))


def dit_config(guidance_embed: bool) -> DiTConfig:
    return replace(TINY.dit, guidance_embed=guidance_embed)


def save(folder: Path, stage: str, module: nn.Module) -> None:
    """Written beside its target and moved into place whole: a run may end at any moment."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half().contiguous().cpu() for name, tensor in module.state_dict().items()}
    partial = folder / f".{stage}.partial"
    save_file(tensors, partial)
    partial.rename(_path(folder, stage))


def load(folder: Path, stage: str, module: nn.Module, *, new: tuple[str, ...] = ()) -> None:
    """Every tensor of the module but those whose names start with one of `new`."""
    path = _path(folder, stage)
    if not path.is_file():
        raise WeightsError(f"got no {path}, expected the checkpoint of that stage\n  train it first")
    missing, unexpected = module.load_state_dict(load_file(path), strict=False)
    missing = [name for name in missing if not name.startswith(new)] if new else missing
    if missing or unexpected:
        raise WeightsError(f"{path}: {len(missing)} tensors are missing and {len(unexpected)} unexpected")


def exists(folder: Path, stage: str) -> bool:
    return _path(folder, stage).is_file()


def _path(folder: Path, stage: str) -> Path:
    return folder / f"{stage}.safetensors"
