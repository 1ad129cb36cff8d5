"""--attention and --kernels: what was asked for runs, or is refused."""

import json
from pathlib import Path

import pytest
import torch

from hyvideo_rt.cli.main import main
from hyvideo_rt.doctor import examine

GENERATE = ("generate", "--model", "tiny", "--prompt", "a red circle", "--infer-steps", "1")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--attention", "fa5"], "got --attention fa5, expected auto or one of fa4, fa3, cudnn"),
        (["--attention", "cudnn"], "does not work here: it needs a CUDA GPU"),
        (["--kernels", "triton"], "got --kernels triton without a GPU"),
        (["--attention", "math", "--backend", "openvino"], "which have their own"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs some of them")
def test_what_cannot_run_is_refused(
    flags: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HYVIDEO_ENGINE_DIR", str(tmp_path))
    assert main([*GENERATE, "--device", "cpu", "--save-path", str(tmp_path / "out"), *flags]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_video_says_who_computed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYVIDEO_ENGINE_DIR", str(tmp_path / "none"))
    for attention, said in (("auto", "reference"), ("math", "reference, math")):
        flags = ("--device", "cpu", "--save-path", str(tmp_path), "--json", "--attention", attention)
        assert main([*GENERATE, *flags]) == 0
        assert json.loads(capsys.readouterr().out)["kernels"] == said


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_the_doctor_says_which_attention_works(tmp_path: Path) -> None:
    finding = next(each for each in examine(tmp_path / "results", tmp_path) if each.name == "attention")
    assert finding.status == "ok"
    assert finding.detail == "auto takes sdpa; math, sdpa work"
