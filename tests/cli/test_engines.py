"""`hyvideo-rt build` and `hyvideo-rt engines` as a person runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "hyvideo_rt.cli.main"]
BUILD = ("build", "--model", "tiny", "--preset", "tiny-square", "--component", "single_block")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def run(home: Path, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """With `home` as the user's cache and configuration."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "OMP_NUM_THREADS": "2"}
    return subprocess.run([*COMMAND, *args], cwd=cwd or home, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def built(home: Path) -> str:
    """The name of the one engine that was built."""
    done = run(home, *BUILD)
    assert done.returncode == 0, done.stderr
    assert "built in" in done.stderr
    (row,) = json.loads(run(home, "engines", "list", "--json").stdout)
    assert row["loads here"] == "yes"
    return str(row["engine"])


def test_a_second_build_finds_the_first(home: Path, built: str) -> None:
    done = run(home, *BUILD)
    assert done.returncode == 0
    assert f"{built}: was there" in done.stderr


def test_list_and_inspect(home: Path, built: str) -> None:
    assert built in run(home, "engines", "list").stdout
    manifest = json.loads(run(home, "engines", "inspect", built).stdout)
    assert manifest["spec"]["component"] == "single_block"
    assert 0 <= manifest["parity"]["engine_error"] <= manifest["parity"]["budget"]
    done = run(home, "engines", "inspect", "nothing")
    assert done.returncode == 2
    assert "engines list" in done.stderr


def test_engines_that_were_asked_for_and_are_not_all_there(home: Path, built: str) -> None:
    args = ("generate", "--model", "tiny", "--prompt", "x", "--infer-steps", "1")
    done = run(home, *args, "--backend", "inductor")
    assert done.returncode == 1
    assert "build it: hyvideo-rt build --component double_block" in done.stderr
    assert not (home / "results").exists()
    done = run(home, *args)
    assert done.returncode == 0
    assert "eager: no engine double_block" in done.stderr


def test_fp8_is_for_tensorrt(home: Path) -> None:
    done = run(home, *BUILD, "--use-fp8")
    assert done.returncode == 2
    assert "got --use-fp8 for engines of inductor" in done.stderr
    assert "--backend eager" in done.stderr


def test_engines_for_gpus_that_are_not_here(home: Path) -> None:
    args = ("build", "--model", "tiny", "--preset", "tiny-square", "--component", "single_block")
    skus = ("--sku", "rtx4090", "--sku", "l40s", "--sku", "rtx5090", "--use-fp8")
    store = ("--engine-dir", str(home / "cross"))
    done = run(home, *args, *skus, *store)
    assert done.returncode == 0, done.stderr
    assert "2 engines are for other devices: none has run" in done.stderr  # two of the GPUs are of one kind
    rows = json.loads(run(home, "engines", "list", "--json", *store).stdout)
    assert {row["loads here"] for row in rows} == {"other device"}
    assert "0 engines and 0 other folders deleted" in run(home, "engines", "prune", *store).stderr
    assert sum("fp8-tensorrt_rtx-sm120" in row["engine"] for row in rows) == 1


@pytest.mark.parametrize(
    ("sku", "words"),
    [("rtx4091", "expected one of a100, b200"), ("h100", "only the GPU itself can build those")],
)
def test_skus_that_cannot_be_built_for(home: Path, sku: str, words: str) -> None:
    done = run(home, "build", "--sku", sku)
    assert done.returncode == 2
    assert words in done.stderr


def test_generate_makes_no_store(tmp_path: Path) -> None:
    done = run(tmp_path, "generate", "--model", "tiny", "--prompt", "x", "--infer-steps", "1")
    assert done.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_verify_finds_what_was_altered_and_prune_deletes_it(home: Path, built: str) -> None:
    """Last: the engine is gone then."""
    path = home / ".cache" / "hyvideo-rt" / "engines" / built / "engine.pt2"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = run(home, "engines", "verify")
    assert done.returncode == 1
    assert "engine.pt2 was altered" in done.stderr
    assert "0 whole, 1 moved to quarantine" in done.stderr
    assert "0 engines and 1 other folders deleted" in run(home, "engines", "prune").stderr
    assert run(home, "engines", "verify").returncode == 0
