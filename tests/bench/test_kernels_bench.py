"""The benchmark of kernels runs on a CPU, so that it is never broken on a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hyvideo_rt.bench.kernels import attention_inputs, attention_rows, dit_cases, exact_rows, vae_cases
from hyvideo_rt.bench.quality_tables import OF_ATTENTION
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


READ_TWICE = ("group_norm_silu_pad",)  # for its statistics


def test_it_measures_every_operator_and_every_attention(tmp_path: Path) -> None:
    out = tmp_path / "kernels.json"
    command = [sys.executable, "-m", "hyvideo_rt.bench.kernels", "--runs", "1", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    result = json.loads(out.read_text())
    assert result["conditions"]["command"].startswith("python -m hyvideo_rt.bench.kernels")
    assert [row["kernel"] for row in result["memory"]] == OPERATORS
    contestants = ["eager", "compile", *(["triton"] if torch.cuda.is_available() else [])]
    for row in result["memory"]:
        assert (row["quality"] is not None) == row["kernel"].endswith("_rows")
        assert list(row["ratios"]) == contestants[:-1]
        for name in contestants:
            assert row[name]["p20_ms"] <= row[name]["ms"] <= row[name]["p80_ms"]
    ran = {row["backend"]: row for row in result["attention"] if "tf_s" in row}
    failed = {row["backend"]: row["error"] for row in result["attention"] if "error" in row}
    assert {*ran, *failed} == set(BACKENDS)
    assert {row["backend"] for row in result["attention"] if row["quality"]} == set(OF_ATTENTION)
    if not torch.cuda.is_available():
        assert set(ran) == {"sdpa", "math"}
        assert all(row["relative_error"] < 1e-4 for row in ran.values())
        assert ran["math"]["ratio"]["of"] == "sdpa"
        assert failed["fa4"] == "it needs a CUDA GPU"


@torch.inference_mode()
def test_what_is_moved_is_the_size_of_the_tensors() -> None:
    cpu = torch.device("cpu")
    for make in (*dit_cases(cpu), *vae_cases(cpu)):
        case = make()
        read = [x for x in case.inputs if isinstance(x, Tensor)]
        out = case.contestants["eager"](*case.inputs)
        moved = sum(x.nbytes for x in [*read, *tensors_of(out)])
        if case.name.startswith(READ_TWICE):
            moved += read[0].nbytes
        if case.name == "qk_norm_rope":
            moved -= read[0].nbytes // 3  # v stays where it lies
        assert case.moved == pytest.approx(moved, rel=0.04), case.name  # vectors are not counted


def tensors_of(out: object) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else [x for each in out for x in tensors_of(each)]  # type: ignore[attr-defined]


def test_a_row_is_written_as_soon_as_it_is_had() -> None:
    def cut(rows: list[dict[str, object]]) -> None:
        kept.append([str(row["backend"]) for row in rows if "tf_s" in row])
        if len(kept) == 3:
            raise KeyboardInterrupt

    kept: list[list[str]] = []
    with pytest.raises(KeyboardInterrupt), torch.inference_mode():
        attention_rows(torch.device("cpu"), 4, cut)
    assert [len(each) for each in kept] == [0, 2, 2]


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
