"""Configs of the text encoders: as transformers 4 and 5 write them, nested in larger models, refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from hyvideo_rt.config import MODELS, ClipConfig, LlamaConfig
from hyvideo_rt.errors import WeightsError
from hyvideo_rt.weights.text_configs import clip_json, llm_json, read_clip_config, read_llm_config

TINY = MODELS["tiny"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_there_and_back(path: Path, model: Any) -> None:
    path.write_text(json.dumps(llm_json(model.llm)))
    assert read_llm_config(path) == model.llm
    path.write_text(json.dumps(clip_json(model.clip)))
    assert read_clip_config(path) == model.clip


def test_what_transformers_writes(tmp_path: Path) -> None:
    """Its own defaults, and its reading of what we write."""
    import transformers

    transformers.LlamaConfig.from_dict(llm_json(TINY.llm)).save_pretrained(tmp_path / "llm")
    transformers.CLIPTextConfig.from_dict(clip_json(TINY.clip)).save_pretrained(tmp_path / "clip")
    assert read_llm_config(tmp_path / "llm" / "config.json") == TINY.llm
    assert read_clip_config(tmp_path / "clip" / "config.json") == TINY.clip
    transformers.LlamaConfig().save_pretrained(tmp_path / "default")
    whole = json.loads((tmp_path / "default" / "config.json").read_text())
    (tmp_path / "sparse.json").write_text('{"model_type": "llama"}')
    assert read_llm_config(tmp_path / "sparse.json") == read_llm_config(tmp_path / "default" / "config.json")
    assert whole["rope_parameters"]["rope_theta"] == 10000.0
    transformers.CLIPTextConfig().save_pretrained(tmp_path / "default")
    (tmp_path / "sparse.json").write_text('{"model_type": "clip_text_model"}')
    assert read_clip_config(tmp_path / "sparse.json") == read_clip_config(
        tmp_path / "default" / "config.json"
    )


def test_transformers_4_spelling_of_rope(path: Path) -> None:
    raw = llm_json(TINY.llm) | {"rope_theta": 123456.0, "rope_scaling": None}
    del raw["rope_parameters"]
    path.write_text(json.dumps(raw))
    assert read_llm_config(path).rope_theta == 123456.0


def test_text_part_of_llava(path: Path) -> None:
    text = {
        "architectures": ["LlamaForCausalLM"],
        "intermediate_size": 14336,
        "max_position_embeddings": 8192,
        "model_type": "llama",
        "num_key_value_heads": 8,
        "pad_token_id": 128258,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "torch_dtype": "float16",
        "vocab_size": 128320,
    }
    path.write_text(
        json.dumps({"model_type": "llava", "text_config": text, "vision_config": {"hidden_size": 1024}})
    )
    assert read_llm_config(path) == LlamaConfig()


def test_text_part_of_clip_with_its_old_token_ids(path: Path) -> None:
    text = {
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "model_type": "clip_text_model",
        "num_attention_heads": 12,
        "vocab_size": 49408,
    }
    path.write_text(json.dumps({"model_type": "clip", "text_config": text}))
    assert read_clip_config(path) == ClipConfig()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "t5"}, "got model_type = 't5', expected 'llava' or 'llama'"),
        ({"model_type": "llava"}, "got text_config = None, expected the fields of a llama"),
        ({"hidden_act": "gelu"}, "got hidden_act = 'gelu', expected 'silu'"),
        ({"attention_bias": True}, "got attention_bias = True, expected False"),
        ({"head_dim": 99}, "got head_dim = 99, expected 16"),
        ({"num_attention_heads": 3}, "expected divisors of 64"),
        ({"num_key_value_heads": 3}, "expected divisors of 64"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "got type = 'linear', expected 'default'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "got rope_type = 'llama3', expected 'default'"),
        ({"rope_parameters": 3}, "got rope_parameters = 3, expected an object"),
    ],
)
def test_llms_that_we_do_not_implement(path: Path, change: dict[str, Any], message: str) -> None:
    path.write_text(json.dumps(llm_json(TINY.llm) | change))
    with pytest.raises(WeightsError, match=message):
        read_llm_config(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "got hidden_act = 'gelu', expected 'quick_gelu'"),
        ({"eos_token_id": 1024}, "got eos_token_id = 1024, expected a token below 1024"),
        ({"bos_token_id": "0"}, "got bos_token_id = '0', expected a token"),
        ({"num_attention_heads": 3}, "got num_attention_heads = 3, expected a divisor of 64"),
    ],
)
def test_clips_that_we_do_not_implement(path: Path, change: dict[str, Any], message: str) -> None:
    path.write_text(json.dumps(clip_json(TINY.clip) | change))
    with pytest.raises(WeightsError, match=message):
        read_clip_config(path)
