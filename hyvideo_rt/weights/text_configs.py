"""config.json of the text encoders, as transformers 4 and 5 write them, from and to our frozen configs.

The files of a whole LLaVA or CLIP are read too: theirs nest the text part. Absent fields have the defaults of
transformers' classes, since nested parts list only what differs from those.
"""

from pathlib import Path
from typing import Any

from hyvideo_rt.config import ClipConfig, LlamaConfig
from hyvideo_rt.weights.config_fields import ConfigFields

_LLAMA_DEFAULT = LlamaConfig(
    vocab_size=32000, intermediate_size=11008, num_kv_heads=32, rope_theta=10000.0, norm_eps=1e-6
)
_LLAMA_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "norm_eps": "rms_norm_eps",
}
_CLIP_DEFAULT = ClipConfig(hidden_size=512, intermediate_size=2048, num_heads=8)
_CLIP_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
    "norm_eps": "layer_norm_eps",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
}


def read_llm_config(path: Path) -> LlamaConfig:
    fields = _text_part(ConfigFields(path), "llava", "llama")
    for key, value in {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}.items():
        fields.only(key, value)
    values: dict[str, Any] = {
        ours: fields.like(key, getattr(_LLAMA_DEFAULT, ours)) for ours, key in _LLAMA_KEYS.items()
    }
    if fields.values.get("num_key_value_heads") is None:
        values["num_kv_heads"] = values["num_heads"]
    config = LlamaConfig(rope_theta=_rope_theta(fields), **values)
    if config.hidden_size % config.num_heads or config.num_heads % config.num_kv_heads:
        fields.fail("heads", (config.num_heads, config.num_kv_heads), f"divisors of {config.hidden_size}")
    fields.only("head_dim", config.head_dim)
    return config


def llm_json(config: LlamaConfig) -> dict[str, Any]:
    """RoPE in both spellings."""
    return {
        "architectures": ["LlamaModel"],
        "model_type": "llama",
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        **{key: getattr(config, ours) for ours, key in _LLAMA_KEYS.items()},
    }


def read_clip_config(path: Path) -> ClipConfig:
    fields = _text_part(ConfigFields(path), "clip", "clip_text_model")
    fields.only("hidden_act", "quick_gelu")
    values: dict[str, Any] = {
        ours: fields.like(key, getattr(_CLIP_DEFAULT, ours))
        for ours, key in _CLIP_KEYS.items()
        if not ours.endswith("token_id")
    }
    if values["hidden_size"] % values["num_heads"]:
        fields.fail("num_attention_heads", values["num_heads"], f"a divisor of {values['hidden_size']}")
    bos = fields.values.get("bos_token_id", _CLIP_DEFAULT.bos_token_id)
    eos = fields.values.get("eos_token_id", _CLIP_DEFAULT.eos_token_id)
    if eos == 2:  # written before transformers 4.24, which then took the highest id for the end of text
        bos, eos = values["vocab_size"] - 2, values["vocab_size"] - 1
    for key, token in [("bos_token_id", bos), ("eos_token_id", eos)]:
        if type(token) is not int or not 0 <= token < values["vocab_size"]:
            fields.fail(key, token, f"a token below {values['vocab_size']}")
    return ClipConfig(bos_token_id=bos, eos_token_id=eos, **values)


def clip_json(config: ClipConfig) -> dict[str, Any]:
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_act": "quick_gelu",
        "projection_dim": config.hidden_size,
        **{key: getattr(config, ours) for ours, key in _CLIP_KEYS.items()},
    }


def _text_part(fields: ConfigFields, whole: str, text: str) -> ConfigFields:
    """The text tower's fields, be they nested in a larger model's or not."""
    fields.require("model_type")
    fields.only("model_type", whole, text)
    if fields.values["model_type"] == text:
        return fields
    nested = fields.values.get("text_config")
    if not isinstance(nested, dict):
        fields.fail("text_config", nested, f"the fields of a {text}")
    part = ConfigFields(fields.path, nested)
    part.only("model_type", text)
    return part


def _rope_theta(fields: ConfigFields) -> float:
    """`rope_theta` (transformers 4) or `rope_parameters` (5); scaled variants are not implemented."""
    theta = fields.like("rope_theta", _LLAMA_DEFAULT.rope_theta)
    for key in ("rope_scaling", "rope_parameters"):
        nested = fields.values.get(key)
        if nested is None:
            continue
        if not isinstance(nested, dict):
            fields.fail(key, nested, "an object or null")
        rope = ConfigFields(fields.path, nested)
        rope.only("rope_type", "default")
        rope.only("type", "default")
        theta = rope.like("rope_theta", theta)
    return theta
