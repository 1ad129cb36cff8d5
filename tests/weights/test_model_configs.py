"""Configs of the DiT and the VAE: there and back in both layouts, as libraries write them, and refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import HeadersOnly

from hyvideo_rt.config import MODELS, DiTConfig, VAEConfig
from hyvideo_rt.errors import WeightsError
from hyvideo_rt.weights.layouts import Layout
from hyvideo_rt.weights.model_configs import (
    MODEL_INDEX,
    check_model_index,
    dit_json,
    infer_dit_config,
    read_dit_config,
    read_vae_config,
    vae_json,
)
from hyvideo_rt.weights.tensor_files import TensorSource

LAYOUTS: list[Layout] = ["original", "diffusers"]
GOLDEN_VAE = VAEConfig((8, 16, 16, 16), norm_groups=4, sample_size=32, sample_tsize=16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", [model.dit for model in MODELS.values()], ids=list(MODELS))
def test_dit_there_and_back(path: Path, layout: Layout, config: DiTConfig) -> None:
    path.write_text(json.dumps(dit_json(config, layout)))
    assert read_dit_config(path, layout) == config


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", [*(model.vae for model in MODELS.values()), GOLDEN_VAE])
def test_vae_there_and_back(path: Path, layout: Layout, config: VAEConfig) -> None:
    path.write_text(json.dumps(vae_json(config, layout)))
    assert read_vae_config(path, layout) == config


@pytest.mark.parametrize(("name", "model"), [("dit_original_cfgdistill", 0), ("dit_original_base", 1)])
def test_published_dit_is_inferred_from_its_shapes(
    manifest: Callable[[str], dict[str, Any]], name: str, model: int
) -> None:
    source = TensorSource([HeadersOnly({key: shape for key, (shape, _) in manifest(name).items()})])
    assert infer_dit_config(source) == list(MODELS.values())[model].dit


def test_other_heads_cannot_be_inferred(manifest: Callable[[str], dict[str, Any]]) -> None:
    shapes = {key: shape for key, (shape, _) in manifest("dit_original_base").items()}
    shapes["double_blocks.0.img_attn_q_norm.weight"] = [64]
    with pytest.raises(WeightsError, match=r"heads of 64 .* expected heads of 128"):
        infer_dit_config(TensorSource([HeadersOnly(shapes)]))
    with pytest.raises(WeightsError, match=r"no tensor img_in\.proj\.weight, expected one of 5 dimensions"):
        infer_dit_config(TensorSource([HeadersOnly({"a": [1]})]))


def test_our_diffusers_configs_are_diffusers_own(tmp_path: Path) -> None:
    import diffusers

    dit = MODELS["HYVideo-T/2"].dit
    with torch.device("meta"):
        transformer = diffusers.HunyuanVideoTransformer3DModel.from_config(dit_json(dit, "diffusers"))
        vae = diffusers.AutoencoderKLHunyuanVideo.from_config(vae_json(VAEConfig(), "diffusers"))
    assert transformer.config.guidance_embeds is False
    transformer.save_config(tmp_path / "transformer")
    vae.save_config(tmp_path / "vae")
    assert read_dit_config(tmp_path / "transformer" / "config.json", "diffusers") == dit
    assert read_vae_config(tmp_path / "vae" / "config.json", "diffusers") == VAEConfig()


def test_published_vae_config_of_the_original(path: Path) -> None:
    published = {
        "_class_name": "AutoencoderKLCausal3D",
        "_diffusers_version": "0.4.2",
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlockCausal3D"] * 4,
        "in_channels": 3,
        "latent_channels": 16,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 256,
        "sample_tsize": 64,
        "up_block_types": ["UpDecoderBlockCausal3D"] * 4,
        "scaling_factor": 0.476986,
        "time_compression_ratio": 4,
        "mid_block_add_attention": True,
    }
    path.write_text(json.dumps(published))
    assert read_vae_config(path, "original") == VAEConfig()
    del published["sample_tsize"]
    path.write_text(json.dumps(published))
    with pytest.raises(WeightsError, match="got sample_tsize = None, expected a value"):
        read_vae_config(path, "original")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "FluxTransformer2DModel"}, "expected 'HunyuanVideoTransformer3DModel'"),
        ({"_class_name": None}, "got _class_name = None, expected a value"),
        ({"qk_norm": "layer_norm"}, "got qk_norm = 'layer_norm', expected 'rms_norm'"),
        ({"patch_size": 4}, "got patch_size = 4, expected 2"),
        (
            {"image_condition_type": "latent_concat"},
            "image_condition_type = 'latent_concat', expected no such",
        ),
        ({"num_layers": "20"}, "got num_layers = '20', expected a positive integer"),
        ({"num_layers": -1}, "expected a positive integer"),
        ({"num_layers": True}, "expected a positive integer"),
        ({"rope_theta": "256"}, "expected a finite number"),
        ({"guidance_embeds": 1}, "expected true or false"),
        ({"rope_axes_dim": [16, 56]}, "expected three even ones that add up to a head of 128"),
        ({"rope_axes_dim": [17, 55, 56]}, "expected three even ones"),
        ({"rope_axes_dim": 128}, "expected a list of positive integers"),
    ],
)
def test_dit_configs_that_we_do_not_implement(path: Path, change: dict[str, Any], message: str) -> None:
    path.write_text(json.dumps(dit_json(DiTConfig(), "diffusers") | change))
    with pytest.raises(WeightsError, match=message):
        read_dit_config(path, "diffusers")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "gelu"}, "got act_fn = 'gelu', expected 'silu'"),
        ({"down_block_types": ["DownBlock3D"] * 4}, "expected"),
        ({"mid_block_add_attention": False}, "got mid_block_add_attention = False, expected True"),
        ({"temporal_compression_ratio": 8}, "got temporal_compression_ratio = 8, expected 4"),
        ({"block_out_channels": [128, 256, 512]}, "expected"),
        ({"norm_num_groups": 48}, "expected four multiples of 48"),
        ({"sample_size": 200}, "expected multiples of 32 pixels and 16 frames"),
        ({"tile_overlap_factor": 0.5}, "that overlap by a quarter"),
        ({"use_quantum": True}, "got use_quantum = True, expected no such field"),
    ],
)
def test_vae_configs_that_we_do_not_implement(path: Path, change: dict[str, Any], message: str) -> None:
    path.write_text(json.dumps(vae_json(VAEConfig(), "diffusers") | change))
    with pytest.raises(WeightsError, match=message):
        read_vae_config(path, "diffusers")


def test_absent_and_null_fields_are_the_published_ones(path: Path) -> None:
    path.write_text(json.dumps({"_class_name": "HunyuanVideoTransformer3DModel", "num_layers": None}))
    assert read_dit_config(path, "diffusers") == replace(DiTConfig())


def test_model_index_of_another_pipeline(path: Path) -> None:
    path.write_text(json.dumps(MODEL_INDEX | {"image_encoder": [None, None]}))
    check_model_index(path)
    for key, value in [("text_encoder", ["transformers", "T5EncoderModel"]), ("_class_name", "FluxPipeline")]:
        path.write_text(json.dumps(MODEL_INDEX | {key: value}))
        with pytest.raises(WeightsError, match=f"got {key} = "):
            check_model_index(path)


def test_duplicate_keys_and_other_json_are_refused(path: Path) -> None:
    for text, message in [('{"a": 1, "a": 2}', "the key 'a' appears twice"), ("[1]", "expected an object")]:
        path.write_text(text)
        with pytest.raises(WeightsError, match=message):
            read_dit_config(path, "original")
