"""The judge's verdicts on many videos, as shares of what is right."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from tiny.judge import judge, score
from tiny.render import to_uint8
from tiny.world import Scene

PROPERTIES = ("colour", "shape", "direction", "count", "all")


def score_all(videos: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """videos [B, 3, F, H, W] in [-1, 1], one per scene; the share that is right in each property."""
    scores = score_each(videos, scenes)
    return {name: float(np.mean([each[name] for each in scores])) for name in PROPERTIES}


def score_each(videos: Tensor, scenes: Sequence[Scene]) -> list[dict[str, bool]]:
    """What is right in every single one."""
    return [score(judge(to_uint8(video)), scene) for video, scene in zip(videos, scenes, strict=True)]
