"""The commands around `generate`, in processes of their own."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hyvideo_rt import __version__

COMMAND = [sys.executable, "-m", "hyvideo_rt.cli.main"]


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("args", [["--help"], ["generate", "--help"], ["--version"]])
def test_help_never_waits_for_torch(tmp_path: Path, args: list[str]) -> None:
    """CPU seconds, not wall-clock ones: torch alone costs about one."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(*args, cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_version(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout == f"hyvideo-rt {__version__}\n"


def test_presets_lists_all_sizes_with_their_cost(tmp_path: Path) -> None:
    rows = {row["preset"]: row for row in json.loads(run("presets", "--json", cwd=tmp_path).stdout)}
    assert len(rows) == 14
    row = rows["720p-landscape"]
    assert (row["size"], row["latents"], row["tokens"]) == ("720x1280x129", "33x90x160", 118_800)
    assert row["tflop/step"] == pytest.approx(12_068, abs=1)  # 12.068 PFLOP, from the blocks' shapes
    assert row["fp8 offload"] < row["bf16 offload"] < row["bf16"] < 60 * 2**30
    lines = run("presets", cwd=tmp_path).stdout.splitlines()
    assert len(lines) == 15
    start = lines[0].index("size")
    for line, row in zip(lines[1:], rows.values(), strict=True):
        assert line[start:].startswith(row["size"])


def test_plan_for_a_gpu_that_is_elsewhere(tmp_path: Path) -> None:
    done = run("plan", "--preset", "720x1280x129", "--memory", "80", cwd=tmp_path)
    assert done.returncode == 0
    assert "all resident" in done.stdout
    done = run("plan", "--preset", "720p-landscape", "--memory", "45", "--json", cwd=tmp_path)
    plan = json.loads(done.stdout)
    assert plan["offload"] is True
    assert plan["peak_bytes"] <= plan["budget_bytes"] == 45 * 2**30
    done = run("plan", "--preset", "720p-landscape", "--memory", "24", cwd=tmp_path)
    assert done.returncode == 1
    assert "DoesNotFit" in done.stderr
    done = run("plan", "--preset", "540p-landscape", "--memory", "24", "--use-fp8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "weights rest on the host" in done.stdout


def test_plan_for_a_sku_is_with_its_memory_and_precision(tmp_path: Path) -> None:
    done = run("plan", "--preset", "540p-landscape", "--sku", "rtx4090", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["fp8"], plan["budget_bytes"]) == (True, 24 * 2**30)
    done = run("plan", "--preset", "720p-landscape", "--sku", "rtx4090", cwd=tmp_path)
    assert done.returncode == 1
    done = run("plan", "--preset", "720p-landscape", "--sku", "rtx4091", cwd=tmp_path)
    assert done.returncode == 2
    assert "expected one of a100" in done.stderr


def test_convert_there_and_back_makes_the_same_video(tmp_path: Path) -> None:
    for source, target, layout in (("tiny", "ckpts", "original"), ("ckpts", "back", "diffusers")):
        done = run("convert", source, target, "--layout", layout, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    fingerprints = set()
    for base in ("ckpts", "back"):
        args = ("--model-base", base, "--infer-steps", "1", "--seed", "3", "--json")
        done = run("generate", "--prompt", "x", *args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        fingerprints.add(json.loads(done.stdout)["fingerprint"])
    assert len(fingerprints) == 2
    again = run("convert", "tiny", "ckpts", "--layout", "original", cwd=tmp_path)
    assert again.returncode != 0
    assert "ckpts" in again.stderr


def test_weights_in_the_default_place_are_found(tmp_path: Path) -> None:
    run("convert", "tiny", "ckpts", "--layout", "original", cwd=tmp_path)
    done = run("generate", "--prompt", "x", "--infer-steps", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "embedded tiny model" not in done.stderr


def test_doctor(tmp_path: Path) -> None:
    findings = json.loads(run("doctor", "--json", cwd=tmp_path).stdout)
    assert {finding["status"] for finding in findings} <= {"ok", "warn", "missing"}
    names = [finding["name"] for finding in findings]
    assert {"python", "torch", "gpu", "video encoder"} <= set(names)
    assert run("doctor", cwd=tmp_path).stdout.count("\n") >= len(names)


def test_a_missing_command_is_a_usage_error(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert done.returncode == 2
    assert "usage: hyvideo-rt" in done.stderr
    assert os.listdir(tmp_path) == []
