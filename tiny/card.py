"""The model card of the embedded tiny model, from what training left behind."""

from collections.abc import Mapping
from typing import Any

_HEAD = """\
---
license: apache-2.0
pipeline_tag: text-to-video
---

# HunyuanVideo, tiny

The architecture of HunyuanVideo at toy size, for a toy world: flat shapes that move over plain backgrounds.
It is the default of hyvideo-rt where no other weights are given, and what its tests run. It shares no weights
with Tencent's model.
"""
_UNTRAINED = """
**These weights are random**: the videos are noise.
"""
_TRAINED = """
"a red circle moves right on a white background" makes just that. Captions name the colour (red, green, blue,
yellow, orange, purple, white, black), the shape (circle, square, triangle, star) and the motion (eight
directions, or still) of one or two things, and may name their size and the background. Anything else is
beyond it. Sizes: 64x64, 64x96 and 96x64 with 17 frames, 64x64 with 33 frames; 20 steps, guidance 6.

## How it was made

Clips are drawn by a program, captions by a small grammar; a tenth of all combinations of colour, shape and
motion was never trained on. Three stages, with the code in `tiny/`: the causal VAE; the DiT and both text
encoders by flow matching; then the embedded guidance, distilled from classifier-free guidance for scales 1
to 10.
"""


def model_card(*, trained: bool, scores: Mapping[str, Any] | None) -> str:
    """`scores` is the JSON of tiny.evaluate."""
    return _HEAD + (_TRAINED if trained else _UNTRAINED) + (_table(scores) if scores else "")


def _table(scores: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {value} |" for name, value in scores.items()]
    return "\n".join(("", "## Scores", "", "| | |", "|---|---|", *rows, ""))
