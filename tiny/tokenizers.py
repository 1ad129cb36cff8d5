"""The two small tokenizers of the tiny model, made from the words of its captions and prompt templates.

The LLM's is byte-level BPE with Llama-3's way of splitting text; CLIP's is lower-casing BPE with `</w>` at
the end of words. Both know every byte, so that no text is unknown, and have 1024 tokens; what training leaves
over is reserved. Nothing is random: the files are the same each time. `python -m tiny.tokenizers FOLDER`
writes them.
"""

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from hyvideo_rt.models.tokenizers import IMAGE_TEMPLATE, VIDEO_TEMPLATE
from tiny.captions import words

VOCAB_SIZE = 1024

BOS, END_OF_TURN, PAD = "<|begin_of_text|>", "<|eot_id|>", "<|pad|>"
LLM_SPECIALS = (BOS, "<|start_header_id|>", "<|end_header_id|>", END_OF_TURN, PAD)  # ids 0 to 4
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # English endings
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"  # a word, with the space or sign before it
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"  # signs
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CLIP_BOS, CLIP_EOS = "<|startoftext|>", "<|endoftext|>"  # ids 1022 and 1023
CLIP_SPLIT = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CLIP_LENGTH = 77
WORD_END = "</w>"


def write(folder: Path) -> None:
    """Writes tokenizer/ (LLM) and tokenizer_2/ (CLIP) of the diffusers layout into the folder."""
    _write_llm(folder / "tokenizer")
    _write_clip(folder / "tokenizer_2")


def llm_tokenizer() -> Tokenizer:
    """Each caption word, at the start, in the middle or capitalised, and each template word is one token."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(_llm_texts(), _trainer(special_tokens=list(LLM_SPECIALS)))
    reserved = VOCAB_SIZE - tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([f"<|reserved_special_token_{i}|>" for i in range(reserved)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def clip_tokenizer() -> Tokenizer:
    """Each caption word is one token, in any case."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + WORD_END for byte in alphabet)]
    merges = _clip_merges(tokens)
    tokens += ["".join(pair) for pair in merges]
    tokens += [f"<|reserved_{i}|>" for i in range(VOCAB_SIZE - 2 - len(tokens))]
    vocab = {token: i for i, token in enumerate([*tokens, CLIP_BOS, CLIP_EOS])}
    tokenizer = _clip_shell(BPE(vocab, merges, unk_token=CLIP_EOS, end_of_word_suffix=WORD_END))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (CLIP_BOS, CLIP_EOS)])
    tokenizer.post_processor = processors.RobertaProcessing(
        (CLIP_EOS, vocab[CLIP_EOS]), (CLIP_BOS, vocab[CLIP_BOS]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def _llm_texts() -> Iterable[str]:
    for template in (VIDEO_TEMPLATE, IMAGE_TEMPLATE):
        yield from re.split(r"<\|\w+\|>|{}", template.text)
    for word in words():
        yield from (word, " " + word, word.capitalize())


def _clip_merges(alphabet: list[str]) -> list[tuple[str, str]]:
    """As many as make every word one token: far fewer than would fit.

    The trainer breaks ties by token id and numbers the ends of words as its hash map yields them, unless they
    are there before it starts: as "special" tokens of a tokenizer that is then thrown away.
    """
    tokenizer = _clip_shell(BPE(end_of_word_suffix=WORD_END))
    tokenizer.train_from_iterator(words(), _trainer(end_of_word_suffix=WORD_END, special_tokens=alphabet))
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def _trainer(**options: Any) -> BpeTrainer:
    return BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        **options,
    )


def _clip_shell(model: BPE) -> Tokenizer:
    """NFC, single spaces and lower case; then words, single digits and runs of signs; then bytes."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _write_llm(folder: Path) -> None:
    """For the class PreTrainedTokenizerFast: transformers 5 gives LlamaTokenizerFast another splitter."""
    folder.mkdir(parents=True, exist_ok=True)
    llm_tokenizer().save(str(folder / "tokenizer.json"))
    specials = {"bos_token": BOS, "eos_token": END_OF_TURN, "pad_token": PAD}
    _write_json(folder / "special_tokens_map.json", specials)
    _write_json(
        folder / "tokenizer_config.json",
        {
            **specials,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": 8192,
            "padding_side": "right",
        },
    )


def _write_clip(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = clip_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    specials = {"bos_token": CLIP_BOS, "eos_token": CLIP_EOS, "pad_token": CLIP_EOS, "unk_token": CLIP_EOS}
    _write_json(folder / "special_tokens_map.json", specials)
    _write_json(
        folder / "tokenizer_config.json",
        {
            **specials,
            "tokenizer_class": "CLIPTokenizer",
            "clean_up_tokenization_spaces": False,
            "do_lower_case": True,
            "model_max_length": CLIP_LENGTH,
            "padding_side": "right",
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the model's folder")
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
