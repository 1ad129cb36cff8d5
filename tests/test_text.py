"""Prompt to text states, against the original's routine (padded, masked, cropped) on transformers' models."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from small_tokenizers import train_clip_style, train_llama3_style
from tokenizers import Tokenizer
from torch import Tensor

from hyvideo_rt.config import MODELS
from hyvideo_rt.errors import InvalidRequest, TokenizerMismatch
from hyvideo_rt.models.clip import ClipTextEncoder
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.tokenizers import (
    IMAGE_TEMPLATE,
    VIDEO_TEMPLATE,
    ClipTokenizer,
    LlmTokenizer,
    PromptTemplate,
)
from hyvideo_rt.text import TextEncoder, TextStates

ATOL = 2e-5  # of the golden tensors' README, unit-scale states in fp32
CONFIG = MODELS["tiny"]
CAT = "A cat walks on the grass, realistic style."
PROMPTS = [
    "",
    CAT,
    "  \n" + CAT + "\t ",
    "一只猫在草地上行走，写实风格。",
    "a cat 🐈‍⬛ and a 👩‍🚀 in space 🚀🚀",
    "braces {} {0} {name} and <|eot_id|> inside",
    "word " * 300,
    "word " * 10_000,
]


@dataclass(frozen=True)
class Oracle:
    """transformers' models behind the same tokenizer files, driven as in the original."""

    llm: Any
    clip: Any
    llm_tokenizer: Tokenizer
    clip_tokenizer: Any

    def states(self, prompt: str, template: PromptTemplate, final_norm: bool = False) -> Tensor:
        """The valid states [n, D] out of all that the original hands to the DiT."""
        length = 256 + VIDEO_TEMPLATE.crop_start
        self.llm_tokenizer.enable_truncation(length)
        self.llm_tokenizer.enable_padding(length=length)
        encoding = self.llm_tokenizer.encode(template.text.format(prompt.strip()))
        ids, mask = torch.tensor([encoding.ids]), torch.tensor([encoding.attention_mask])
        out = self.llm(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-3]
        states: Tensor = self.llm.norm(out) if final_norm else out
        return states[0, template.crop_start :][mask[0, template.crop_start :].bool()]

    def pooled(self, prompt: str) -> Tensor:
        tokens = self.clip_tokenizer(
            prompt, max_length=77, truncation=True, padding="max_length", return_tensors="pt"
        )
        pooled: Tensor = self.clip(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return pooled


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("tokenizers")
    train_llama3_style([CAT]).save(str(path / "tokenizer.json"))
    (path / "clip").mkdir()
    train_clip_style([CAT], path / "clip")
    return path


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Oracle:
    llm, clip_tokenizer = CONFIG.llm, ClipTokenizer(folder / "clip")
    clip = CONFIG.clip
    models = Oracle(
        llm=transformers.LlamaModel(
            transformers.LlamaConfig(
                vocab_size=llm.vocab_size,
                hidden_size=llm.hidden_size,
                intermediate_size=llm.intermediate_size,
                num_hidden_layers=llm.num_layers,
                num_attention_heads=llm.num_heads,
                num_key_value_heads=llm.num_kv_heads,
                rope_parameters={"rope_type": "default", "rope_theta": llm.rope_theta},
                rms_norm_eps=llm.norm_eps,
            )
        ),
        clip=transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=clip.vocab_size,
                hidden_size=clip.hidden_size,
                intermediate_size=clip.intermediate_size,
                num_hidden_layers=clip.num_layers,
                num_attention_heads=clip.num_heads,
                bos_token_id=clip_tokenizer.bos_id,
                eos_token_id=clip_tokenizer.eos_id,
            )
        ),
        llm_tokenizer=Tokenizer.from_file(str(folder / "tokenizer.json")),
        clip_tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "clip"),
    )
    give_unit_scale(models.llm)
    give_unit_scale(models.clip)
    return models


def give_unit_scale(model: Any) -> None:
    """Random weights of which each matters, norms near one."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.requires_grad_(False).eval().named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 2 and "embed" not in name:
            noise /= weight.shape[-1] ** 0.5
        weight.data = 1 + 0.1 * noise if "norm" in name and name.endswith("weight") else noise


def build(oracle: Oracle, folder: Path, skip_layers: int = 2, **options: Any) -> TextEncoder:
    llm, clip_tokenizer = LlamaEncoder(CONFIG.llm, skip_layers), ClipTokenizer(folder / "clip")
    llm.load_state_dict({key: oracle.llm.state_dict()[key] for key in llm.state_dict()})
    clip = ClipTextEncoder(replace(CONFIG.clip, eos_token_id=clip_tokenizer.eos_id))
    clip.text_model.load_state_dict(oracle.clip.state_dict())
    return TextEncoder(llm, LlmTokenizer(folder), clip, clip_tokenizer, **options)


@pytest.fixture(scope="module")
def encoder(oracle: Oracle, folder: Path) -> TextEncoder:
    return build(oracle, folder)


def assert_close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: repr(prompt[:20]))
def test_equals_the_original_routine(encoder: TextEncoder, oracle: Oracle, prompt: str, image: bool) -> None:
    text = encoder.encode(prompt, image=image)
    assert text.states.std() > 0.5
    assert_close(text.states[0], oracle.states(prompt, IMAGE_TEMPLATE if image else VIDEO_TEMPLATE))
    assert_close(text.pooled, oracle.pooled(prompt))


def test_final_norm(oracle: Oracle, folder: Path) -> None:
    text = build(oracle, folder, apply_final_norm=True).encode(CAT)
    assert_close(text.states[0], oracle.states(CAT, VIDEO_TEMPLATE, final_norm=True))


def test_without_skipped_layers_the_final_norm_is_always_applied(oracle: Oracle, folder: Path) -> None:
    """As in the original, whose last hidden state is the normed one."""
    encoder = build(oracle, folder, skip_layers=0)
    normed = build(oracle, folder, skip_layers=0, apply_final_norm=True)
    ids = torch.tensor([encoder.llm_tokenizer.encode(CAT, VIDEO_TEMPLATE)])
    expected = oracle.llm(ids).last_hidden_state[:, 95:]
    assert_close(encoder.encode(CAT).states, expected)
    assert_close(normed.encode(CAT).states, expected)


def test_an_empty_prompt_is_one_end_of_turn(encoder: TextEncoder) -> None:
    text = encoder.encode(" \n ")
    assert (text.states.shape, text.num_llm_tokens, text.truncated) == ((1, 1, 64), 1, False)


@pytest.mark.parametrize(("image", "limit"), [(False, 256), (True, 315)])
def test_a_prompt_that_is_too_long_is_cut_and_says_so(encoder: TextEncoder, image: bool, limit: int) -> None:
    """Each word of `fits` is one token, and so is the end-of-turn."""
    template = IMAGE_TEMPLATE if image else VIDEO_TEMPLATE
    fits = "A" + " the" * (limit - 2)
    assert len(encoder.llm_tokenizer.encode(fits, template)) == template.crop_start + limit
    assert counts(encoder.encode(fits, image=image)) == (limit, limit, False)
    assert counts(encoder.encode(fits + " the", image=image)) == (limit, limit + 1, True)
    assert counts(encoder.encode(fits + " the" * 10_000, image=image)) == (limit, limit + 10_000, True)


def counts(text: TextStates) -> tuple[int, int, bool]:
    return text.states.shape[1], text.num_llm_tokens, text.truncated


def test_text_len_sets_what_is_kept(encoder: TextEncoder, oracle: Oracle, folder: Path) -> None:
    short = build(oracle, folder, text_len=8).encode(CAT)
    full = encoder.encode(CAT)
    assert counts(short) == (8, full.num_llm_tokens, True)
    assert_close(short.states, full.states[:, :8])
    with pytest.raises(InvalidRequest, match="text length of 0"):
        build(oracle, folder, text_len=0)


def test_only_valid_tokens_are_run(encoder: TextEncoder) -> None:
    lengths: list[int] = []
    hook = encoder.llm.embed_tokens.register_forward_hook(
        lambda _module, _args, out: lengths.append(out.shape[1])
    )
    text = encoder.encode(CAT)
    hook.remove()
    assert lengths == [95 + text.num_llm_tokens]


def test_dtype_follows_the_modules(oracle: Oracle, folder: Path) -> None:
    encoder = build(oracle, folder)
    encoder.llm.to(torch.bfloat16)
    encoder.clip.to(torch.float16)
    text = encoder.encode(CAT)
    assert (text.states.dtype, text.pooled.dtype) == (torch.bfloat16, torch.float16)
    assert not text.states.requires_grad


def test_half_a_character_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(InvalidRequest, match="position 6"):
        encoder.encode("a cat \ud83d")


def test_tokenizers_of_another_model_are_refused(encoder: TextEncoder) -> None:
    llm, llm_tokenizer = encoder.llm, encoder.llm_tokenizer
    clip, clip_tokenizer = encoder.clip, encoder.clip_tokenizer
    small_llm = LlamaEncoder(replace(CONFIG.llm, vocab_size=100))
    with pytest.raises(TokenizerMismatch, match=r"LLM's tokenizer has .* at most the model's 100"):
        TextEncoder(small_llm, llm_tokenizer, clip, clip_tokenizer)
    small_clip = ClipTextEncoder(replace(CONFIG.clip, vocab_size=100))
    with pytest.raises(TokenizerMismatch, match=r"CLIP's tokenizer has .* at most the model's 100"):
        TextEncoder(llm, llm_tokenizer, small_clip, clip_tokenizer)
    other_eos = ClipTextEncoder(replace(CONFIG.clip, eos_token_id=2))
    with pytest.raises(TokenizerMismatch, match="expected 2 as in the model's config"):
        TextEncoder(llm, llm_tokenizer, other_eos, clip_tokenizer)
