import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from conftest import Golden

from hyvideo_rt.kernels.rope import EPS, rms_norm_rope_reference, rope_table

ATOL = 1e-6  # of the golden tensors' README


def test_rope_tables(golden: Callable[[str], Golden]) -> None:
    file = golden("rope_a")
    for grid in ((2, 3, 4), (5, 2, 3)):
        name = "grid" + "x".join(map(str, grid))
        for got, part in zip(rope_table(grid, (16, 56, 56), 256.0), ("cos", "sin"), strict=True):
            expected = file.tensors[f"{name}.{part}"]
            torch.testing.assert_close(got.repeat_interleave(2, dim=-1), expected, atol=ATOL, rtol=0)
    rows = file.tensors["grid33x45x80.row_index"]
    for got, part in zip(rope_table((33, 45, 80), (16, 56, 56), 256.0), ("cos", "sin"), strict=True):
        expected = file.tensors[f"grid33x45x80.{part}_rows"]
        torch.testing.assert_close(got[rows].repeat_interleave(2, dim=-1), expected, atol=ATOL, rtol=0)


# Each child is a fresh process to MKL: nothing has used its threads before the fork.
FIRST_COSINES = """
import math, os, sys, torch
from hyvideo_rt.kernels.rope import cos_sin

angle = torch.arange(20480, dtype=torch.float32) / 512  # exact
true = [torch.tensor([f(x / 512) for x in range(20480)], dtype=torch.float64) for f in (math.cos, math.sin)]

def error():
    torch.set_num_threads(8)
    torch.ones(256, 256) @ torch.ones(256, 256)  # now the threads are there
    return max((got.double() - part).abs().max().item() for got, part in zip(cos_sin(angle), true))

for _ in range(80):
    if (child := os.fork()) == 0:
        os._exit(int(error() > 1e-7))
    if os.waitpid(child, 0)[1]:
        sys.exit("a child's cosines are wrong")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_the_first_table_of_a_process_is_as_exact_as_the_others() -> None:
    """In fp32 three of a hundred processes err by 2e-4 on a CPU where MKL computes cosines."""
    subprocess.run([sys.executable, "-c", FIRST_COSINES], check=True, timeout=120)


def test_golden_rotation(golden: Callable[[str], Golden]) -> None:
    """The golden q and k are rotated without norm: undo ours, which only scales each head."""
    file = golden("rope_a")
    cos, sin = rope_table((2, 3, 4), (16, 56, 56), 256.0)
    for name in ("q", "k"):
        x = file.tensors[f"apply.{name}"]
        rms = torch.sqrt(x.square().mean(-1, keepdim=True) + EPS)
        got = rms_norm_rope_reference(x, torch.ones(128), cos, sin) * rms
        torch.testing.assert_close(got, file.tensors[f"apply.{name}_out"], atol=ATOL, rtol=1e-6)


def test_text_behind_the_image_is_only_normalised() -> None:
    x = torch.randn(2, 30, 3, 128, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(0.5, 2, 128)
    cos, sin = rope_table((2, 3, 4), (16, 56, 56), 256.0)
    joint = rms_norm_rope_reference(x, weight, cos, sin)
    assert torch.equal(joint[:, 24:], rms_norm_rope_reference(x[:, 24:], weight))
    assert torch.equal(joint[:, :24], rms_norm_rope_reference(x[:, :24], weight, cos, sin))
    assert (joint[:, :24] - rms_norm_rope_reference(x[:, :24], weight)).abs().max() > 0.1


def test_scores_depend_on_distance_alone() -> None:
    """The point of RoPE: a query and a key shifted together keep their product."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 1, 128, generator=generator, dtype=torch.float64) for _ in range(2))
    cos, sin = rope_table((4, 5, 6), (16, 56, 56), 256.0)

    def at(x: torch.Tensor, t: int, h: int, w: int) -> torch.Tensor:
        row = (t * 5 + h) * 6 + w
        weight = torch.ones(128, dtype=torch.float64)
        return rms_norm_rope_reference(x, weight, cos[row : row + 1], sin[row : row + 1])

    product = (at(q, 0, 1, 2) * at(k, 1, 3, 0)).sum()
    shifted = (at(q, 2, 2, 5) * at(k, 3, 4, 3)).sum()
    torch.testing.assert_close(shifted, product, atol=1e-4, rtol=0)  # fp32 tables
