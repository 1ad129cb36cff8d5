"""The LLM against the original's golden tensors and transformers' LlamaModel."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from conftest import Golden
from torch import Tensor

from hyvideo_rt.config import LlamaConfig
from hyvideo_rt.models.llama import LlamaEncoder

ATOL = 2e-5  # of the golden tensors' README, unit-scale states in fp32
CONFIG = LlamaConfig(
    vocab_size=96, hidden_size=64, intermediate_size=112, num_layers=4, num_heads=4, num_kv_heads=2
)


def golden_encoder(file: Golden, skip_layers: int) -> LlamaEncoder:
    raw = file.metadata["llm_config"]
    config = LlamaConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        num_kv_heads=raw["num_key_value_heads"],
        rope_theta=raw["rope_theta"],
        norm_eps=raw["rms_norm_eps"],
    )
    return with_weights(config, file.group("llm.sd"), skip_layers)


def with_weights(config: LlamaConfig, weights: dict[str, Tensor], skip_layers: int) -> LlamaEncoder:
    """As the loader does it: built without memory, given the tensors of the layers that exist."""
    with torch.device("meta"):
        encoder = LlamaEncoder(config, skip_layers)
    dtype = weights["norm.weight"].dtype
    built = {key: weights[key].to(dtype) for key in encoder.state_dict()}
    encoder.load_state_dict(built, assign=True)
    return encoder.requires_grad_(False).eval()


def oracle(config: LlamaConfig) -> Any:
    """transformers' model with weights that all matter: unit-scale states after every layer."""
    model = transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            rms_norm_eps=config.norm_eps,
        )
    )
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.data = noise / weight.shape[-1] ** 0.5 if weight.ndim == 2 else 1 + 0.1 * noise
    model.embed_tokens.weight.data.mul_(config.hidden_size**0.5)
    return model.requires_grad_(False).eval()


def random_ids(length: int, batch: int = 2) -> Tensor:
    return torch.randint(0, CONFIG.vocab_size, (batch, length), generator=torch.Generator().manual_seed(1))


def assert_close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("index", range(6))
def test_golden_hidden_states(golden: Callable[[str], Golden], index: int) -> None:
    """hidden_states[i] is the output of i layers; the last one is normed as well."""
    file = golden("text_a")
    inputs, expected = file.group("llm.in"), file.tensors[f"llm.out.hidden_states.{index}"]
    encoder = golden_encoder(file, skip_layers=5 - index)
    states = encoder(inputs["input_ids"])
    if index == 5:
        states = encoder.norm(states)
    start = states.shape[1] - expected.shape[1]
    valid = inputs["attention_mask"][:, start:].bool()
    assert_close(states[:, start:][valid], expected[valid])


@pytest.mark.parametrize("case", ["video", "image", "video_final_norm"])
def test_golden_states_for_the_dit(golden: Callable[[str], Golden], case: str) -> None:
    file = golden("text_a")
    inputs, config = file.group("llm.in"), file.metadata["llm_config"]
    encoder = golden_encoder(file, config["hidden_state_skip_layer"])
    states = encoder(inputs["input_ids"])
    if case == "video_final_norm":
        states = encoder.norm(states)
    crop = config["crop_start_image" if case == "image" else "crop_start_video"]
    valid = inputs["attention_mask"][:, crop:].bool()
    assert_close(states[:, crop:][valid], file.tensors[f"llm.out.{case}.hidden_state"][valid])


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("skip_layers", [1, 2])
def test_equals_transformers(num_kv_heads: int, skip_layers: int) -> None:
    config = replace(CONFIG, num_kv_heads=num_kv_heads)
    reference, ids = oracle(config), random_ids(37)
    expected = reference(ids, output_hidden_states=True).hidden_states
    states = with_weights(config, reference.state_dict(), skip_layers)(ids)
    assert states.std() > 0.5
    assert_close(states, expected[-(skip_layers + 1)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_errs_no_more_than_transformers(dtype: torch.dtype) -> None:
    """Both against fp64; twice transformers' own error plus one rounding step is the budget."""
    reference, ids = oracle(CONFIG), random_ids(37)
    weights = {key: value.to(dtype) for key, value in reference.state_dict().items()}
    doubled = {key: value.double() for key, value in weights.items()}
    truth = with_weights(CONFIG, doubled, skip_layers=2)(ids)
    states = with_weights(CONFIG, weights, skip_layers=2)(ids)
    theirs = reference.to(dtype)(ids, output_hidden_states=True).hidden_states[-3]
    assert states.dtype == dtype
    budget = 2 * ((theirs - truth).abs().max() + torch.finfo(dtype).eps * truth.abs().max())
    assert (states - truth).abs().max() <= budget


def test_a_token_sees_none_that_follow() -> None:
    """So padding needs no mask, and none is computed."""
    encoder, ids = with_weights(CONFIG, oracle(CONFIG).state_dict(), skip_layers=2), random_ids(30)
    assert_close(encoder(ids)[:, :11], encoder(ids[:, :11]))


@pytest.mark.parametrize("skip_layers", [0, 2])
def test_full_size_keys_and_shapes(manifest: Callable[[str], dict[str, Any]], skip_layers: int) -> None:
    with torch.device("meta"):
        encoder = LlamaEncoder(LlamaConfig(), skip_layers)
    skipped = tuple(f"layers.{i}." for i in range(32 - skip_layers, 32))
    expected = {
        key: shape
        for key, (shape, _) in manifest("text_encoder_llm").items()
        if not (skipped and key.startswith(skipped))
    }
    assert {key: list(weight.shape) for key, weight in encoder.state_dict().items()} == expected
    assert not list(encoder.buffers())


def test_export_with_any_length() -> None:
    encoder, ids = with_weights(CONFIG, oracle(CONFIG).state_dict(), skip_layers=2), random_ids(12, batch=1)
    length = torch.export.Dim("length", min=2, max=411)
    program = torch.export.export(encoder, (ids,), dynamic_shapes=({1: length},))
    longer = random_ids(29, batch=1)
    assert_close(program.module()(longer), encoder(longer))
