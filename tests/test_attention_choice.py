"""Attention libraries are tried in a process of their own, once; what is asked for works or is refused."""

import json
from pathlib import Path

import pytest
import torch

from hyvideo_rt import attention
from hyvideo_rt.attention import Setting, Verdict, choose_attention, installed, relative_error, try_attention
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.kernels.attention_backends import BACKENDS

CPU, GPU = Setting(torch.device("cpu")), Setting(torch.device("cuda"))
WRONG = "import torch\ndef sageattn(q, k, v, tensor_layout): return torch.zeros_like(q)\n"
RIGHT = """
from torch.nn.functional import scaled_dot_product_attention as sdpa
def sageattn(q, k, v, tensor_layout):
    assert tensor_layout == "NHD"
    out = sdpa(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    k -= k.mean(1, keepdim=True)  # as the real one does
    return out
"""


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the choice asks a GPU for; trials still run on the CPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")


def with_library(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sageattention.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path(__file__).parents[1]}")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (RIGHT, ""),
        (WRONG, "its relative error is 1.0e+00, allowed is 1.0e-01"),
        ("def sageattn(q, k, v, tensor_layout): return q * float('nan')", "its relative error is nan"),
        ("import os; os.abort()", "its trial ended with -6: it said nothing"),
        ("raise OSError('libcudart.so.12: no such file')", "ended with 1: OSError: libcudart.so.12"),
    ],
)
def test_a_trial_survives_what_the_library_does(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_library(source, tmp_path, monkeypatch)
    verdict = attention._trial("sage", CPU)
    assert verdict.reason.startswith(reason) if not reason.startswith("ended") else reason in verdict.reason
    if not reason:
        assert verdict.relative_error is not None
        assert 0 < verdict.relative_error < 0.01


@pytest.mark.usefixtures("hopper")
def test_a_trial_is_made_once_for_the_same_circumstances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, trials = tmp_path / "cache" / "attention.json", []

    def trial(name: str, setting: Setting) -> Verdict:
        trials.append(name)
        return Verdict(name, "its trial ended with -11: it said nothing")

    monkeypatch.setattr(attention, "_trial", trial)
    for _ in range(2):
        assert "-11" in try_attention("cudnn", GPU, cache).reason
    assert trials == ["cudnn"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    try_attention("cudnn", GPU, cache)
    assert trials == ["cudnn", "cudnn"]
    try_attention("cudnn", Setting(GPU.device, torch.float32), cache)
    assert trials == ["cudnn"] * 3
    cache.write_text("{ half of a file")
    try_attention("cudnn", GPU, cache)
    assert len(json.loads(cache.read_text())) == 1


@pytest.mark.usefixtures("hopper")
def test_auto_takes_the_fastest_that_works_and_never_8_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = {"flash", "fa3-fp8", "sage"}
    monkeypatch.setattr(
        attention, "_trial", lambda name, setting: Verdict(name, "" if name in works else "no")
    )
    assert choose_attention("auto", GPU, tmp_path / "a.json")[0] == "flash"
    works.clear()
    assert choose_attention("auto", GPU, tmp_path / "b.json")[0] == "sdpa"
    works.add("cudnn")
    assert choose_attention("auto", GPU, tmp_path / "c.json")[0] == "cudnn"


@pytest.mark.parametrize(
    ("asked", "setting", "reason"),
    [
        ("cudnn", CPU, "it needs a CUDA GPU"),
        ("fa3", GPU, "it is not installed: pip install fa3-fwd"),
    ],
)
@pytest.mark.usefixtures("hopper")
def test_what_does_not_work_is_refused(asked: str, setting: Setting, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        choose_attention(asked, setting, tmp_path / "attention.json")


def test_another_generation_has_other_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert (
        try_attention("fa3", GPU, tmp_path / "a.json").reason
        == "it has no kernels for compute capability 8.9"
    )


def test_on_a_cpu_torch_computes_it(tmp_path: Path) -> None:
    name, attend = choose_attention("auto", CPU, tmp_path / "attention.json")
    assert name == "sdpa"
    assert relative_error(attend, CPU) < 0.01
    assert {"sdpa", "math", "cudnn"} <= set(installed())
    assert not {name for name in attention.AUTOMATIC if BACKENDS[name].bits == 8}


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(installed()))
def test_on_a_gpu(name: str, tmp_path: Path) -> None:
    """Whatever is installed and made for this GPU works in its own process and here."""
    reason = try_attention(name, GPU, tmp_path / "attention.json").reason
    first, last = BACKENDS[name].capability
    if not first <= torch.cuda.get_device_capability()[0] <= last:
        assert "no kernels for compute capability" in reason
        return
    assert not reason
    assert relative_error(BACKENDS[name].load(), GPU) < attention.ALLOWED_ERROR[BACKENDS[name].bits]
