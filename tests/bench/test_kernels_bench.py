"""The benchmark of kernels runs on a CPU, so that it is never broken on a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hyvideo_rt.bench.kernels import attention_inputs, exact_rows, plot
from hyvideo_rt.kernels.attention import joint_attention_reference
from hyvideo_rt.kernels.attention_backends import BACKENDS

OPERATORS = [
    "layer_norm_modulate",
    "gate_residual",
    "gate_residual_norm",
    "joint_qkv",
    "qk_norm_rope",
    "gelu_beside",
    "layer_norm_modulate_rows",
    "gelu_beside_rows",
    "group_norm_silu_pad 32x9x32x32",
    "upsample_pad 32x9x32x32",
]


def test_it_measures_every_operator_and_every_attention(tmp_path: Path) -> None:
    out, picture = tmp_path / "kernels.json", tmp_path / "kernels.png"
    command = [sys.executable, "-m", "hyvideo_rt.bench.kernels", "--runs", "1", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    result = json.loads(out.read_text())
    assert result["conditions"]["command"].startswith("python -m hyvideo_rt.bench.kernels")
    assert [row["kernel"] for row in result["memory"]] == OPERATORS
    contestants = {"eager", "compile"} | ({"triton"} if torch.cuda.is_available() else set())
    for row in result["memory"]:
        assert contestants <= set(row)
        for name in contestants:
            assert row[name]["gb_s"] * row[name]["ms"] * 1e6 == pytest.approx(row["bytes"], rel=0.1)
    ran = {row["backend"]: row for row in result["attention"] if "tf_s" in row}
    failed = {row["backend"]: row["error"] for row in result["attention"] if "error" in row}
    assert {*ran, *failed} == set(BACKENDS)
    if not torch.cuda.is_available():
        assert {"sdpa", "math"} <= set(ran)
        assert all(row["relative_error"] < 1e-4 for row in ran.values())
        assert failed["fa4"].startswith("ModuleNotFoundError")
    plot(result, picture)
    assert picture.stat().st_size > 10_000


def test_the_inputs_are_hard_for_8_bits_and_the_rows_exact() -> None:
    q, k, v = attention_inputs(200, torch.device("cpu"))
    shared = k.mean(1).norm(dim=-1) / k.norm(dim=-1).mean()
    assert shared.min() > 0.5  # all keys share a direction
    rows = torch.tensor([0, 7, 199])
    exact = exact_rows(q, k, v, rows, [0, 1])
    expected = joint_attention_reference(q, k, v).unflatten(-1, (2, 128))[0, rows][:, [0, 1]]
    torch.testing.assert_close(exact.float(), expected, atol=1e-5, rtol=0)
    scores = (q[0, :, 0] @ k[0, :, 0].T) * 128**-0.5
    places = scores.softmax(-1).cumsum(-1)[100]
    assert places[60] < 0.2  # tokens attend to those near them
    assert places[140] > 0.8
