"""Captions as token ids, padded to one length, for batches of training clips."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from hyvideo_rt.models.tokenizers import VIDEO_TEMPLATE, ClipTokenizer, LlmTokenizer
from tiny import tokenizers

LLM_LENGTH, CLIP_LENGTH = 32, 32  # the longest of 60,000 captions have 31 and 32
PAD_ID = 4


class Texts(NamedTuple):
    """llm_ids [B, 95 + 32] with the template's prefix, valid [B] of the 32, clip_ids [B, 32]; all int64."""

    llm_ids: Tensor
    valid: Tensor
    clip_ids: Tensor

    def to(self, device: torch.device) -> "Texts":
        return Texts(*(tensor.to(device) for tensor in self))


class Tokenizers:
    """Both tokenizers of the tiny model, without a model's folder."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            tokenizers.write(Path(folder))
            self.llm = LlmTokenizer(Path(folder, "tokenizer"))
            self.clip = ClipTokenizer(Path(folder, "tokenizer_2"), CLIP_LENGTH)

    def encode(self, prompts: Sequence[str]) -> Texts:
        """The prompts as `hyvideo_rt.text` tokenises them, padding apart."""
        rows = [self.llm.encode(prompt, VIDEO_TEMPLATE) for prompt in prompts]
        length = VIDEO_TEMPLATE.crop_start + LLM_LENGTH
        assert all(len(row) <= length for row in rows), "longer than any caption"
        return Texts(
            torch.tensor([row + [PAD_ID] * (length - len(row)) for row in rows]),
            torch.tensor([len(row) - VIDEO_TEMPLATE.crop_start for row in rows]),
            torch.tensor([self.clip.encode(prompt) for prompt in prompts]),
        )
