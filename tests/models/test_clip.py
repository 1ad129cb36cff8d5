"""CLIP's text tower against the original's golden tensors and transformers' CLIPTextModel."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from conftest import Golden
from torch import Tensor

from hyvideo_rt.config import ClipConfig
from hyvideo_rt.models.clip import ClipTextEncoder

ATOL = 2e-5  # of the golden tensors' README, unit-scale states in fp32
CONFIG = ClipConfig(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=112,
    num_layers=3,
    num_heads=4,
    bos_token_id=94,
    eos_token_id=95,
)


def golden_encoder(file: Golden) -> ClipTextEncoder:
    raw = file.metadata["clip_config"]
    config = ClipConfig(
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
    return with_weights(config, file.group("clip.sd"))


def with_weights(config: ClipConfig, weights: dict[str, Tensor]) -> ClipTextEncoder:
    """As the loader does it: built without memory, then given its tensors."""
    with torch.device("meta"):
        encoder = ClipTextEncoder(config)
    encoder.load_state_dict(weights, assign=True)
    return encoder.requires_grad_(False).eval()


def oracle() -> Any:
    """transformers' model with weights that all matter, biases and norms included."""
    model = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=CONFIG.vocab_size,
            hidden_size=CONFIG.hidden_size,
            intermediate_size=CONFIG.intermediate_size,
            num_hidden_layers=CONFIG.num_layers,
            num_attention_heads=CONFIG.num_heads,
            max_position_embeddings=CONFIG.max_positions,
            hidden_act="quick_gelu",
            layer_norm_eps=CONFIG.norm_eps,
            bos_token_id=CONFIG.bos_token_id,
            eos_token_id=CONFIG.eos_token_id,
        )
    )
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 2 and "embedding" not in name:
            noise /= weight.shape[-1] ** 0.5
        weight.data = 1 + 0.1 * noise if "norm" in name and name.endswith("weight") else noise
    return model.requires_grad_(False).eval()


def published_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers 5 dropped the prefix that the published file has."""
    return {f"text_model.{key.removeprefix('text_model.')}": value for key, value in weights.items()}


def padded_ids(*lengths: int) -> Tensor:
    """Rows of 77: BOS, `length` ordinary tokens, EOS and padding with EOS."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.full((len(lengths), CONFIG.max_positions), CONFIG.eos_token_id)
    ids[:, 0] = CONFIG.bos_token_id
    for row, length in zip(ids, lengths, strict=True):
        row[1 : 1 + length] = torch.randint(0, CONFIG.bos_token_id, (length,), generator=generator)
    return ids


def assert_close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=ATOL)


def test_golden_pooled(golden: Callable[[str], Golden]) -> None:
    file = golden("text_a")
    pooled = golden_encoder(file)(file.tensors["clip.in.input_ids"])
    assert_close(pooled, file.tensors["clip.out.pooled"])


def test_golden_states(golden: Callable[[str], Golden]) -> None:
    file = golden("text_a")
    valid = file.tensors["clip.in.attention_mask"].bool()
    states = golden_encoder(file).text_model(file.tensors["clip.in.input_ids"])
    assert_close(states[valid], file.tensors["clip.out.last_hidden_state"][valid])


def test_equals_transformers() -> None:
    reference, ids = oracle(), padded_ids(0, 5, 75)
    expected = reference(ids)
    encoder = with_weights(CONFIG, published_names(reference.state_dict()))
    assert_close(encoder.text_model(ids), expected.last_hidden_state)
    assert_close(encoder(ids), expected.pooler_output)
    assert encoder(ids).std() > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_errs_no_more_than_transformers(dtype: torch.dtype) -> None:
    """Both against fp64; twice transformers' own error plus one rounding step is the budget."""
    reference, ids = oracle(), padded_ids(9, 40)
    weights = {key: value.to(dtype) for key, value in published_names(reference.state_dict()).items()}
    truth = with_weights(CONFIG, {key: value.double() for key, value in weights.items()})(ids)
    pooled, theirs = with_weights(CONFIG, weights)(ids), reference.to(dtype)(ids).pooler_output
    assert pooled.dtype == dtype
    budget = 2 * ((theirs - truth).abs().max() + torch.finfo(dtype).eps * truth.abs().max())
    assert (pooled - truth).abs().max() <= budget


def test_what_follows_the_first_eos_is_irrelevant() -> None:
    encoder = with_weights(CONFIG, published_names(oracle().state_dict()))
    ids = padded_ids(6)
    other = ids.clone()
    other[:, 8:] = 3
    assert_close(encoder(other), encoder(ids))
    assert_close(encoder(ids[:, :8]), encoder(ids))
    other[:, 6] = 3
    assert (encoder(other) - encoder(ids)).abs().max() > 0.1


def test_full_size_keys_and_shapes(manifest: Callable[[str], dict[str, Any]]) -> None:
    with torch.device("meta"):
        encoder = ClipTextEncoder(ClipConfig())
    expected = {key: shape for key, (shape, _) in manifest("text_encoder_2_clip").items()}
    assert {key: list(weight.shape) for key, weight in encoder.state_dict().items()} == expected
    assert not list(encoder.buffers())


def test_export() -> None:
    encoder = with_weights(CONFIG, published_names(oracle().state_dict()))
    program = torch.export.export(encoder, (padded_ids(3),))
    ids = padded_ids(20)
    assert_close(program.module()(ids), encoder(ids))
