"""The suite keeps what it has, whatever happens to it."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hyvideo_rt.bench import gpu_suite
from hyvideo_rt.bench.gpu_suite import PARTS, Part, run_all
from hyvideo_rt.bench.markdown import ROOT
from hyvideo_rt.bench.networks import Networks
from hyvideo_rt.bench.steps import chosen, denoise_ladder
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.vae import CausalVAE


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parts are modules: `good` writes its result and counts its calls, `bad` fails, `slow` never ends."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "good.py").write_text(
        "import sys; open(sys.argv[1], 'w').write('{}'); open(sys.argv[2], 'a').write('x')"
    )
    (folder / "bad.py").write_text("raise SystemExit('no GPU memory')")
    (folder / "slow.py").write_text(
        "import sys, time; open(sys.argv[1], 'a').write('half '); time.sleep(600)"
    )
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(gpu_suite, "LEAST_S", 0.2)
    return folder


def part(name: str, *flags: str, limit_s: int = 60) -> Part:
    return Part(name, limit_s, (name, "{out}", *flags), (name, "{out}", *flags))


def test_each_part_has_its_own_end(modules: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "out", tmp_path / "calls"
    parts = [part("bad"), part("slow", limit_s=2), part("good", str(calls))]
    said: list[str] = []
    outcomes = run_all(parts, out, 60, "fa3", small=False, say=said.append)
    assert [outcome.state for outcome in outcomes] == ["failed", "cut", "passed"]
    assert "no GPU memory" in (out / "bad.log").read_text()
    assert (out / "slow.json").read_text() == "half "
    assert (out / "good.json").read_text() == "{}"
    assert len(said) == 3
    written = json.loads((out / "suite.json").read_text())
    assert [each["state"] for each in written["parts"]] == ["failed", "cut", "passed"]
    assert written["conditions"]["torch"]

    again = run_all(parts, out, 60, "fa3", small=False, say=said.append)
    assert [outcome.state for outcome in again] == ["failed", "cut", "passed"]
    assert calls.read_text() == "x", "what had passed ran again"
    assert (out / "slow.json").read_text() == "half half ", "what was cut did not run again"


def test_another_commit_measures_anew(modules: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "out", tmp_path / "calls"
    run_all([part("good", str(calls))], out, 60, "fa3", small=False)
    state = json.loads((out / "suite.json").read_text())
    state["parts"][0]["commit"] = "another"
    (out / "suite.json").write_text(json.dumps(state))
    run_all([part("good", str(calls))], out, 60, "fa3", small=False)
    assert calls.read_text() == "xx"


def test_no_part_begins_after_the_end(modules: Path, tmp_path: Path) -> None:
    parts = [part("slow", limit_s=60), part("good", str(tmp_path / "calls"))]
    outcomes = run_all(parts, tmp_path / "out", 2, "fa3", small=False)
    assert [outcome.state for outcome in outcomes] == ["cut", "not started"]


def test_without_a_gpu_it_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hyvideo_rt.cli.main", "bench", "gpu-suite", "--out", str(tmp_path)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "--rehearse" in done.stderr


@functools.cache
def help_of(module: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_what_a_part_calls_is_there(part: Part) -> None:
    """A typing error would cost minutes of a borrowed GPU."""
    for module, *words in (part.command, part.small):
        if module == "pytest":
            paths = [word.removeprefix("--ignore=") for word in words if "tests" in word]
            assert paths
            assert all((ROOT / path).exists() for path in paths)
        else:
            flags = [word for word in words if word.startswith("--")]
            assert "--out" in flags
            assert all(flag in help_of(module) for flag in flags)


def test_the_rungs_that_are_picked_are_in_the_ladder() -> None:
    config = MODELS["tiny"]
    with torch.device("meta"):
        dit, vae = HunyuanVideoDiT(config.dit), CausalVAE(config.vae)
    networks = Networks(config, dit, vae, torch.device("cuda"))
    rungs = denoise_ladder(networks, Bucket(64, 64, 17), "fa3", Path())
    for part in PARTS:
        if "--rungs" in part.command:
            words = part.command[part.command.index("--rungs") + 1 : part.command.index("--attention")]
            names = [word.format(attention="fa3") for word in words]
            assert [rung.name for rung in chosen(rungs, names)] == names
    with pytest.raises(InvalidRequest, match="expected one of diffusers"):
        chosen(rungs, ["fa2 attention"])
