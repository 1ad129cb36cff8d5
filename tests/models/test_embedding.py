"""Embedding tables: an ordinary nn.Embedding, cheap on the meta device."""

import subprocess
import sys

import torch

from hyvideo_rt.models.embedding import Embedding


def test_rows_of_unit_variance() -> None:
    table = Embedding(2000, 32)
    torch.testing.assert_close(table.weight.var(), torch.tensor(1.0), rtol=0, atol=0.02)  # 64,000 draws
    assert torch.equal(table(torch.tensor([3, 1999])), table.weight[[3, 1999]])
    assert table.weight.requires_grad


def test_text_encoders_on_the_meta_device_import_nothing_more() -> None:
    """sympy stands for what torch imports at the first meta operation without a kernel of its own."""
    program = """
import sys, torch
from hyvideo_rt.config import ClipConfig, LlamaConfig
from hyvideo_rt.models.clip import ClipTextEncoder
from hyvideo_rt.models.llama import LlamaEncoder
before = set(sys.modules)
with torch.device("meta"):
    LlamaEncoder(LlamaConfig())
    ClipTextEncoder(ClipConfig())
assert "sympy" not in set(sys.modules) - before
"""
    subprocess.run([sys.executable, "-c", program], check=True)
