"""The model card of the embedded tiny model, from what training left behind."""

from collections.abc import Mapping, Sequence
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
It is asked like this: "a red circle moves right on a white background". Captions name the colour (red, green,
blue, yellow, orange, purple, white, black), the shape (circle, square, triangle, star) and the motion (eight
directions, or still) of one or two things, and may name their size and the background. Of two things the one
named first is above or on the left. Anything else is beyond it. Sizes: 64x64, 64x96 and 96x64 with 17 frames,
64x64 with 33 frames; 20 steps, guidance 6.

## How it was made

Clips are drawn by a program, captions by a small grammar; a tenth of all combinations of colour, shape and
motion was never trained on. Four stages, with the code in `tiny/`: the causal VAE; the DiT and both text
encoders by flow matching; the embedded guidance, distilled from classifier-free guidance for scales 1 to 10
while much noise is left, and more flow matching after; then the VAE's decoder again, on latents as the DiT
makes them.

    python -m tiny.train_vae RUN
    python -m tiny.train_dit RUN
    python -m tiny.distill RUN
    python -m tiny.refine RUN
    python -m tiny.publish RUN TARGET --trained-on "..."
    python -m tiny.evaluate --model TARGET

Trained on {trained_on}.
"""


def model_card(*, scores: Mapping[str, Any] | None, trained_on: str | None) -> str:
    """scores: the JSON of tiny.evaluate. trained_on: hardware and time, or None for random weights."""
    if trained_on is None:
        return _HEAD + _UNTRAINED
    return _HEAD + _TRAINED.format(trained_on=trained_on) + (_table(scores) if scores else "")


def _table(scores: Mapping[str, Any]) -> str:
    """Shares in percent of the groups of prompts, then the VAE's PSNR."""
    groups = {name: group for name, group in scores.items() if isinstance(group, Mapping) and "all" in group}
    columns = [name for name in next(iter(groups.values())) if name != "videos"]
    lines = [_row(["held-out prompts", "videos", *columns]), _row(["---"] * (2 + len(columns)))]
    for name, group in groups.items():
        lines.append(
            _row([name, str(group["videos"]), *(f"{100 * group[column]:.1f} %" for column in columns)])
        )
    psnr = ", ".join(f"{value:.1f} dB ({size})" for size, value in scores["psnr_db"].items())
    return "\n".join(["", "## Scores", "", *lines, "", f"VAE, held-out clips: {psnr}.", ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
