"""Whole random checkpoints of a few hundred kilobytes: upstream's tree, and what diffusers itself writes."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hyvideo_rt.config import ClipConfig, DiTConfig, LlamaConfig, ModelConfig, VAEConfig
from hyvideo_rt.models.clip import ClipTextEncoder
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.weights.model_configs import MODEL_INDEX, vae_json
from hyvideo_rt.weights.tensor_files import TensorSpec
from hyvideo_rt.weights.text_configs import clip_json, llm_json

PUBLISHED_HEADS = ModelConfig(  # heads of 128: the config can be inferred
    dit=DiTConfig(
        hidden_size=128, num_heads=1, num_double_blocks=2, num_single_blocks=3, text_dim=32, pooled_dim=16
    ),
    vae=VAEConfig(block_channels=(8, 8, 16, 16), layers_per_block=1, norm_groups=4),
    llm=LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_layers=4, num_heads=4, num_kv_heads=2
    ),
    clip=ClipConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_layers=2,
        num_heads=2,
        bos_token_id=48,
        eos_token_id=49,
    ),
)
SMALL_HEADS = replace(
    PUBLISHED_HEADS, dit=replace(PUBLISHED_HEADS.dit, hidden_size=64, num_heads=2, rope_dims=(8, 12, 12))
)

State = dict[str, Tensor]


def random_states(config: ModelConfig, dtype: torch.dtype = torch.float32) -> dict[str, State]:
    """Seeded state dicts, under our names, of dit, vae, llm (all layers) and clip."""
    with torch.device("meta"):
        networks: dict[str, nn.Module] = {
            "dit": HunyuanVideoDiT(config.dit),
            "vae": CausalVAE(config.vae),
            "llm": LlamaEncoder(config.llm, skip_layers=0),
            "clip": ClipTextEncoder(config.clip),
        }
    generator = torch.Generator().manual_seed(0)
    return {
        component: {
            name: (torch.randn(t.shape, generator=generator) / 8).to(dtype)
            for name, t in network.state_dict().items()
        }
        for component, network in networks.items()
    }


class HeadersOnly:
    """A file of the given shapes, in bf16 or E4M3, whose data nobody may ask for."""

    def __init__(self, shapes: Mapping[str, Sequence[int]], fp8: Collection[str] = ()) -> None:
        self.path, self.size_bytes, self.header_digest = Path("folder/file"), 0, ""
        self.specs = {
            name: TensorSpec(tuple(shape), torch.float8_e4m3fn if name in fp8 else torch.bfloat16)
            for name, shape in shapes.items()
        }

    def read_rows(self, name: str, start: int, stop: int, out: Tensor) -> None:
        raise AssertionError(f"{name} was read")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_original(
    folder: Path, config: ModelConfig, states: Mapping[str, State], llm_prefix: str = ""
) -> None:
    """Upstream's tree, with everything that its files hold besides."""
    model = folder / "hunyuan-video-t2v-720p"
    write_json(model / "vae" / "config.json", vae_json(config.vae, "original"))
    write_json(folder / "text_encoder" / "config.json", llm_json(config.llm))
    whole_clip = {"model_type": "clip", "text_config": clip_json(config.clip)}
    write_json(folder / "text_encoder_2" / "config.json", whole_clip)
    (model / "transformers").mkdir()
    torch.save({"module": states["dit"]}, model / "transformers" / "mp_rank_00_model_states.pt")
    vae = {f"vae.{name}": tensor for name, tensor in states["vae"].items()}
    torch.save({"state_dict": vae | {"loss.logvar": torch.ones(1)}}, model / "vae" / "pytorch_model.pt")
    llm = {llm_prefix + name: tensor for name, tensor in states["llm"].items()}
    head = "language_model.lm_head.weight" if llm_prefix.startswith("language") else "lm_head.weight"
    if llm_prefix:
        llm |= {head: torch.ones(2), "vision_tower.a.weight": torch.ones(1)}
    save_file(llm, folder / "text_encoder" / "model.safetensors")
    clip = states["clip"] | {"vision_model.a": torch.ones(1), "logit_scale": torch.ones(())}
    clip["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(clip, folder / "text_encoder_2" / "pytorch_model.bin")
    for tokenizer in (folder / "text_encoder", folder / "text_encoder_2"):
        write_json(tokenizer / "tokenizer.json", {"of": tokenizer.name})


def write_with_diffusers(folder: Path, config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    """The folder that diffusers and transformers write of random networks; also its transformer and VAE."""
    import diffusers
    import transformers

    dit, vae, llm, clip = config.dit, config.vae, config.llm, config.clip
    torch.manual_seed(0)
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        num_attention_heads=dit.num_heads,
        attention_head_dim=dit.head_dim,
        num_layers=dit.num_double_blocks,
        num_single_layers=dit.num_single_blocks,
        num_refiner_layers=dit.num_refiner_blocks,
        guidance_embeds=dit.guidance_embed,
        text_embed_dim=dit.text_dim,
        pooled_projection_dim=dit.pooled_dim,
        rope_axes_dim=dit.rope_dims,
    )
    autoencoder = diffusers.AutoencoderKLHunyuanVideo(
        block_out_channels=vae.block_channels,
        layers_per_block=vae.layers_per_block,
        norm_num_groups=vae.norm_groups,
    )
    encoder = transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=llm.vocab_size,
            hidden_size=llm.hidden_size,
            intermediate_size=llm.intermediate_size,
            num_hidden_layers=llm.num_layers,
            num_attention_heads=llm.num_heads,
            num_key_value_heads=llm.num_kv_heads,
            rms_norm_eps=llm.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": llm.rope_theta},
        )
    )
    encoder_2 = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=clip.vocab_size,
            hidden_size=clip.hidden_size,
            intermediate_size=clip.intermediate_size,
            num_hidden_layers=clip.num_layers,
            num_attention_heads=clip.num_heads,
            bos_token_id=clip.bos_token_id,
            eos_token_id=clip.eos_token_id,
        )
    )
    for model in (transformer, autoencoder, encoder, encoder_2):
        for parameter in model.parameters():  # norms and biases too: every weight must matter
            nn.init.normal_(parameter, std=0.1)
    transformer.save_pretrained(folder / "transformer", max_shard_size="300KB")
    autoencoder.save_pretrained(folder / "vae")
    encoder.save_pretrained(folder / "text_encoder")
    encoder_2.save_pretrained(folder / "text_encoder_2")
    diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0).save_pretrained(folder / "scheduler")
    write_json(folder / "model_index.json", MODEL_INDEX)
    for tokenizer in (folder / "tokenizer", folder / "tokenizer_2"):
        write_json(tokenizer / "tokenizer.json", {"of": tokenizer.name})
    return transformer.eval(), autoencoder.eval()
