"""config.json of the DiT and the VAE in both layouts, from and to our frozen configs; model_index.json."""

import math
from pathlib import Path
from typing import Any

from hyvideo_rt.config import DiTConfig, VAEConfig
from hyvideo_rt.errors import WeightsError
from hyvideo_rt.weights.config_fields import ConfigFields
from hyvideo_rt.weights.layouts import Layout
from hyvideo_rt.weights.tensor_files import TensorSource

MODEL_INDEX = {
    "_class_name": "HunyuanVideoPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "LlamaModel"],
    "text_encoder_2": ["transformers", "CLIPTextModel"],
    # Under the name LlamaTokenizerFast, transformers 5 splits text in another way than tokenizer.json says.
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "transformer": ["diffusers", "HunyuanVideoTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLHunyuanVideo"],
}
SCHEDULER_JSON = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 7.0,
    "use_dynamic_shifting": False,
}
PUBLISHED = DiTConfig()

_DIT_CLASS = {"original": "HYVideoDiffusionTransformer", "diffusers": "HunyuanVideoTransformer3DModel"}
_DIT_KEYS = {  # ours: original, diffusers
    "num_heads": ("heads_num", "num_attention_heads"),
    "num_double_blocks": ("mm_double_blocks_depth", "num_layers"),
    "num_single_blocks": ("mm_single_blocks_depth", "num_single_layers"),
    "num_refiner_blocks": ("refiner_depth", "num_refiner_layers"),
    "mlp_ratio": ("mlp_width_ratio", "mlp_ratio"),
    "in_channels": ("in_channels", "in_channels"),
    "out_channels": ("out_channels", "out_channels"),
    "rope_dims": ("rope_dim_list", "rope_axes_dim"),
    "rope_theta": ("rope_theta", "rope_theta"),
    "text_dim": ("text_states_dim", "text_embed_dim"),
    "pooled_dim": ("text_states_dim_2", "pooled_projection_dim"),
    "guidance_embed": ("guidance_embed", "guidance_embeds"),
}
_DIT_FIXED: dict[str, dict[str, Any]] = {
    "original": {"patch_size": [1, 2, 2]},
    "diffusers": {"patch_size": 2, "patch_size_t": 1, "qk_norm": "rms_norm"},
}

_VAE_CLASS = {"original": "AutoencoderKLCausal3D", "diffusers": "AutoencoderKLHunyuanVideo"}
_VAE_BLOCKS = {
    "original": ("DownEncoderBlockCausal3D", "UpDecoderBlockCausal3D"),
    "diffusers": ("HunyuanVideoDownBlock3D", "HunyuanVideoUpBlock3D"),
}
_VAE_KEYS = {
    "block_channels": "block_out_channels",
    "layers_per_block": "layers_per_block",
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "latent_channels": "latent_channels",
    "norm_groups": "norm_num_groups",
    "scaling_factor": "scaling_factor",
}
_VAE_EXTRAS = {  # diffusers has no such fields: written there only where they differ from the published VAE
    "shift_factor": "shift_factor",
    "sample_size": "sample_size",
    "sample_tsize": "sample_tsize",
    "tile_overlap": "tile_overlap_factor",
}


def check_model_index(path: Path) -> None:
    """Raise WeightsError unless the pipeline and its networks are those of HunyuanVideo text-to-video."""
    fields = ConfigFields(path)
    for key in ("_class_name", "transformer", "vae", "text_encoder", "text_encoder_2"):
        fields.require(key)
        fields.only(key, MODEL_INDEX[key])


def read_dit_config(path: Path, layout: Layout) -> DiTConfig:
    """Absent fields are those of the published model, in either layout."""
    fields = ConfigFields(path)
    fields.require("_class_name")
    for key, value in {"_class_name": _DIT_CLASS[layout], **_DIT_FIXED[layout]}.items():
        fields.only(key, value)
    column = 0 if layout == "original" else 1
    values: dict[str, Any] = {
        ours: fields.like(keys[column], getattr(PUBLISHED, ours)) for ours, keys in _DIT_KEYS.items()
    }
    if layout == "original":
        hidden = fields.like("hidden_size", PUBLISHED.hidden_size)
    else:
        hidden = values["num_heads"] * fields.like("attention_head_dim", PUBLISHED.head_dim)
    fields.no_others()
    config = DiTConfig(hidden_size=hidden, **values)
    _check_dit(config, fields)
    return config


def dit_json(config: DiTConfig, layout: Layout) -> dict[str, Any]:
    column = 0 if layout == "original" else 1
    size = {"hidden_size": config.hidden_size}
    return {
        "_class_name": _DIT_CLASS[layout],
        **(size if layout == "original" else {"attention_head_dim": config.head_dim}),
        **_DIT_FIXED[layout],
        **{keys[column]: getattr(config, ours) for ours, keys in _DIT_KEYS.items()},
    }


def infer_dit_config(source: TensorSource) -> DiTConfig:
    """The config behind tensors with original names; RoPE leaves no trace in them: the published one."""
    hidden, in_channels, *patch = _shape(source, "img_in.proj.weight", 5)
    (head_dim,) = _shape(source, "double_blocks.0.img_attn_q_norm.weight", 1)
    if (head_dim, tuple(patch)) != (PUBLISHED.head_dim, PUBLISHED.patch_size) or hidden % head_dim:
        raise WeightsError(
            f"{source.label}: got a width of {hidden}, heads of {head_dim} and patches of {patch}; without a "
            f"config.json expected heads of {PUBLISHED.head_dim} and patches {list(PUBLISHED.patch_size)}\n"
            f"  for another shape put a config.json, as `hyvideo-rt convert` writes it, beside the weights"
        )
    return DiTConfig(
        hidden_size=hidden,
        num_heads=hidden // head_dim,
        num_double_blocks=_count_blocks(source, "double_blocks."),
        num_single_blocks=_count_blocks(source, "single_blocks."),
        num_refiner_blocks=_count_blocks(source, "txt_in.individual_token_refiner.blocks."),
        mlp_ratio=_shape(source, "double_blocks.0.img_mlp.fc1.weight", 2)[0] / hidden,
        in_channels=in_channels,
        out_channels=_shape(source, "final_layer.linear.weight", 2)[0] // math.prod(patch),
        text_dim=_shape(source, "txt_in.input_embedder.weight", 2)[1],
        pooled_dim=_shape(source, "vector_in.in_layer.weight", 2)[1],
        guidance_embed="guidance_in.mlp.0.weight" in source.specs,
    )


def read_vae_config(path: Path, layout: Layout) -> VAEConfig:
    """Unknown fields are an error in diffusers' file; the original's loader drops them, and so do we."""
    fields = ConfigFields(path)
    fields.require("_class_name")
    default = VAEConfig()
    keys = _VAE_KEYS | _VAE_EXTRAS
    values: dict[str, Any] = {ours: fields.like(key, getattr(default, ours)) for ours, key in keys.items()}
    config = VAEConfig(**values)
    for key, value in _vae_fixed(config, layout).items():
        fields.only(key, value)
    if layout == "original":
        fields.require("sample_size", "sample_tsize", "scaling_factor")
    else:
        fields.no_others()
    if len(config.block_channels) != 4 or any(size % config.norm_groups for size in config.block_channels):
        fields.fail("block_out_channels", config.block_channels, f"four multiples of {config.norm_groups}")
    if config.sample_size % 32 or config.sample_tsize % 16 or config.tile_overlap != default.tile_overlap:
        tiles = (config.sample_size, config.sample_tsize, config.tile_overlap)
        fields.fail("tiles", tiles, "multiples of 32 pixels and 16 frames that overlap by a quarter")
    return config


def vae_json(config: VAEConfig, layout: Layout) -> dict[str, Any]:
    extras = _VAE_EXTRAS
    if layout == "diffusers":
        published = VAEConfig()
        extras = {
            ours: key for ours, key in extras.items() if getattr(config, ours) != getattr(published, ours)
        }
    values = {key: getattr(config, ours) for ours, key in (_VAE_KEYS | extras).items()}
    return _vae_fixed(config, layout) | values


def _vae_fixed(config: VAEConfig, layout: Layout) -> dict[str, Any]:
    """What our VAE implements one value of."""
    down, up = _VAE_BLOCKS[layout]
    levels = len(config.block_channels)
    return {
        "_class_name": _VAE_CLASS[layout],
        "act_fn": "silu",
        "down_block_types": [down] * levels,
        "up_block_types": [up] * levels,
        "mid_block_add_attention": True,
        "spatial_compression_ratio": 8,
        "time_compression_ratio" if layout == "original" else "temporal_compression_ratio": 4,
    }


def _check_dit(config: DiTConfig, fields: ConfigFields) -> None:
    if config.hidden_size % config.num_heads:
        fields.fail("the width", config.hidden_size, f"a multiple of {config.num_heads} heads")
    dims = config.rope_dims
    if len(dims) != 3 or sum(dims) != config.head_dim or any(dim % 2 for dim in dims):
        fields.fail("RoPE dimensions", dims, f"three even ones that add up to a head of {config.head_dim}")


def _shape(source: TensorSource, name: str, dims: int) -> tuple[int, ...]:
    spec = source.specs.get(name)
    if spec is None or len(spec.shape) != dims or 0 in spec.shape:
        got = "no tensor" if spec is None else f"the shape {list(spec.shape)} for the tensor"
        raise WeightsError(
            f"{source.label}: got {got} {name}, expected one of {dims} dimensions\n"
            f"  these are not the weights of a HunyuanVideo transformer under its original names"
        )
    return spec.shape


def _count_blocks(source: TensorSource, prefix: str) -> int:
    return len({name.split(".")[prefix.count(".")] for name in source.specs if name.startswith(prefix)})
