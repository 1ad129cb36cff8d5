"""Recipes for small tokenizers of the two kinds, trained in milliseconds on the texts of a test."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from hyvideo_rt.models.tokenizers import IMAGE_TEMPLATE, VIDEO_TEMPLATE

BOS = "<|begin_of_text|>"
LLAMA3_SPECIALS = [BOS, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CLIP_SPECIALS = ["<|startoftext|>", "<|endoftext|>"]
CLIP_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_llama3_style(texts: Iterable[str] = (), vocab_size: int = 1024) -> Tokenizer:
    """Byte-level BPE in which each word of the prompt templates is one token, as in Llama-3's vocabulary."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = llama3_split()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        special_tokens=LLAMA3_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    templates = [VIDEO_TEMPLATE.text, IMAGE_TEMPLATE.text]
    words = [part for text in templates for part in re.split(r"<\|\w+\|>|{}", text)]
    tokenizer.train_from_iterator([*words, *texts], trainer)
    return with_llama3_specials(tokenizer)


def llama3_split() -> pre_tokenizers.Sequence:
    """Words by Llama-3's own expression, then bytes."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def with_llama3_specials(tokenizer: Tokenizer) -> Tokenizer:
    """Special tokens are matched before anything is split, and BOS is put in front."""
    tokenizer.add_special_tokens(LLAMA3_SPECIALS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def train_clip_style(texts: Iterable[str], folder: Path, vocab_size: int = 1024) -> None:
    """Write vocab.json and merges.txt in CLIP's order: bytes, word-final bytes, merges, special tokens."""
    tokenizer = Tokenizer(BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = BpeTrainer(
        vocab_size=vocab_size - 2, min_frequency=1, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.model.save(str(folder))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learned = json.loads((folder / "vocab.json").read_text())
    tokens = [*alphabet, *(byte + "</w>" for byte in alphabet), *learned, *CLIP_SPECIALS]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocab))
