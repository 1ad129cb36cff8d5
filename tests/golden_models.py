"""Our networks with the golden files' sizes and weights."""

from typing import Any

import torch
from conftest import Golden
from torch import Tensor

from hyvideo_rt.config import ClipConfig, DiTConfig, LlamaConfig, VAEConfig
from hyvideo_rt.models.clip import ClipTextEncoder
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.text import TextStates


def golden_dit(file: Golden) -> HunyuanVideoDiT:
    raw = file.metadata["config"]
    config = DiTConfig(
        hidden_size=raw["hidden_size"],
        num_heads=raw["heads_num"],
        num_double_blocks=raw["mm_double_blocks_depth"],
        num_single_blocks=raw["mm_single_blocks_depth"],
        mlp_ratio=raw["mlp_width_ratio"],
        rope_dims=tuple(raw["rope_dim_list"]),
        text_dim=raw["text_states_dim"],
        pooled_dim=raw["text_states_dim_2"],
        guidance_embed=raw["guidance_embed"],
    )
    dit = HunyuanVideoDiT(config)
    dit.load_state_dict(file.group("sd"))
    return dit.eval().requires_grad_(False)


def golden_vae(file: Golden) -> CausalVAE:
    raw = file.metadata["config"]
    config = VAEConfig(
        block_channels=tuple(raw["block_out_channels"]),
        layers_per_block=raw["layers_per_block"],
        latent_channels=raw["latent_channels"],
        norm_groups=raw["norm_num_groups"],
        sample_size=raw["sample_size"],
        sample_tsize=raw["sample_tsize"],
        scaling_factor=raw["scaling_factor"],
        tile_overlap=raw["tile_overlap_factor"],
    )
    vae = CausalVAE(config)
    vae.load_state_dict(file.group("sd"))
    return vae.eval().requires_grad_(False)


class GoldenText:
    """The golden text encoders behind token ids that stand for a tokenised prompt."""

    def __init__(self, file: Golden, ids: dict[str, Tensor]) -> None:
        raw = file.metadata["llm_config"]
        self.crop, self.ids = raw["crop_start_video"], ids
        self.llm = LlamaEncoder(_llama_config(raw), raw["hidden_state_skip_layer"])
        built = self.llm.state_dict().keys()
        self.llm.load_state_dict({k: v for k, v in file.group("llm.sd").items() if k in built})
        self.clip = ClipTextEncoder(_clip_config(file.metadata["clip_config"]))
        self.clip.load_state_dict(file.group("clip.sd"))

    @torch.no_grad()
    def encode(self, prompt: str, *, image: bool) -> TextStates:
        assert not image
        ids = {k.removeprefix(f"{prompt}."): v for k, v in self.ids.items() if k.startswith(prompt)}
        tokens = int(ids["llm_attention_mask"].sum())
        device = self.llm.norm.weight.device
        states = self.llm(ids["llm_input_ids"][:, :tokens].to(device))[:, self.crop :]
        pooled = self.clip(ids["clip_input_ids"].to(device))
        return TextStates(states, pooled, tokens - self.crop, False)


def _llama_config(raw: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        num_kv_heads=raw["num_key_value_heads"],
        rope_theta=raw["rope_theta"],
        norm_eps=raw["rms_norm_eps"],
    )


def _clip_config(raw: dict[str, Any]) -> ClipConfig:
    return ClipConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        max_positions=raw["max_position_embeddings"],
        norm_eps=raw["layer_norm_eps"],
        bos_token_id=raw["bos_token_id"],
        eos_token_id=raw["eos_token_id"],
    )
