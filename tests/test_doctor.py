"""The doctor names what is there, what is missing and what is broken, and always answers."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from hyvideo_rt.doctor import (
    Finding,
    _container_limit,
    _cpuinfo,
    _disk,
    _encoder,
    _has_code_for,
    examine,
    format_findings,
)

ROOT = Path(__file__).parents[1]
REPORT = """
import dataclasses, json, pathlib, sys, time
from hyvideo_rt.doctor import examine
findings = examine(pathlib.Path("results"))
print(json.dumps([dataclasses.asdict(finding) for finding in findings] + [time.process_time()]))
"""


def examined(folder: Path, *flags: str, **environment: str) -> tuple[dict[str, Finding], float]:
    """The findings of another process that starts in `folder`, by name, and its CPU seconds."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", REPORT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    *findings, seconds = json.loads(done.stdout)
    return {finding["name"]: Finding(**finding) for finding in findings}, seconds


def test_it_names_what_is_here(tmp_path: Path) -> None:
    findings = {finding.name: finding for finding in examine(tmp_path / "results", tmp_path)}
    assert findings["python"].detail.startswith(platform.python_version())
    assert findings["torch"].detail.startswith(torch.__version__)
    for name in ("tokenizers", "pillow", "openvino", "transformers", "diffusers"):
        assert findings[name].status == "ok"
        assert findings[name].detail.startswith(metadata.version(name))
    if not torch.cuda.is_available():
        assert findings["recipe"].detail == "cpu: engines of inductor in fp32, measured"
    assert findings["video encoder"].status == "ok"
    assert "libx264 encoded 2 frames" in findings["video encoder"].detail
    assert str(tmp_path / "results") in findings["disk: output"].detail
    assert not (tmp_path / "results").exists()


def test_whatever_is_not_ok_says_what_to_do() -> None:
    findings = examine()
    assert len({finding.name for finding in findings}) == len(findings)
    for finding in findings:
        assert finding.status == "ok" or finding.remedy, finding


def test_memory_is_what_the_kernel_says() -> None:
    total_gib = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) / 1024**2
    (memory,) = (finding for finding in examine() if finding.name == "memory")
    available, total = (float(word) for word in memory.detail.split(",")[0].split() if word[0].isdigit())
    assert total == pytest.approx(total_gib, abs=0.1)
    assert 0 < available <= total


@pytest.mark.parametrize(("content", "limit"), [("max\n", None), ("8589934592\n", 8 * 1024**3), (None, None)])
def test_a_containers_memory_limit(tmp_path: Path, content: str | None, limit: int | None) -> None:
    if content is not None:
        (tmp_path / "memory.max").write_text(content)
    assert _container_limit(tmp_path) == limit


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu() -> None:
    (gpu,) = (finding for finding in examine() if finding.name == "gpu")
    assert (gpu.status, gpu.detail) == ("missing", "no NVIDIA GPU")
    assert "hyvideo-rt plan" in gpu.remedy


@pytest.mark.gpu
def test_a_machine_with_a_gpu() -> None:
    gpu = next(finding for finding in examine() if finding.name == "gpu 0")
    major, minor = torch.cuda.get_device_capability(0)
    assert gpu.status == "ok"
    assert gpu.detail.startswith(f"{torch.cuda.get_device_name(0)}, compute capability {major}.{minor}, ")
    assert "driver " in gpu.detail


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_torch_cannot_use(tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA L40S, 46068 MiB, 580.65.06'\n")
    smi.chmod(0o755)
    findings, _ = examined(tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert findings["gpu"].status == "warn"
    assert "NVIDIA L40S, 46068 MiB, 580.65.06, which this torch cannot use" in findings["gpu"].detail
    assert findings["gpu"].remedy.startswith(("pip install --force-reinstall torch", "update the NVIDIA"))


def test_libraries_that_do_not_load(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    (tmp_path / "av.py").write_text("raise ImportError('libavcodec.so.62: no such file')")
    findings, _ = examined(tmp_path)
    assert findings["torch"].status == "warn"
    assert "libcudart.so.13" in findings["torch"].detail
    assert findings["video encoder"].status == "warn"
    assert "libavcodec.so.62" in findings["video encoder"].detail
    assert findings["python"].status == findings["cpu"].status == findings["disk: output"].status == "ok"


def test_a_python_with_nothing_installed(tmp_path: Path) -> None:
    findings, _ = examined(tmp_path, "-S")
    assert findings["torch"].status == "missing"
    assert findings["torch"].remedy == "pip install torch"
    assert findings["video encoder"].remedy == "pip install av"
    assert findings["tokenizers"].status == "missing"
    assert findings["cpu"].status == "ok"


def test_a_pyav_without_the_encoder() -> None:
    (encoder,) = _encoder("libx264-of-another-build")
    assert encoder.status == "missing"
    assert "cannot encode with libx264-of-another-build" in encoder.detail
    assert encoder.remedy.startswith("pip install")


def test_it_takes_less_than_three_seconds(tmp_path: Path) -> None:
    _, seconds = examined(tmp_path)
    assert seconds < 3


def test_a_disk_without_room_and_a_folder_without_permission(tmp_path: Path) -> None:
    (full,) = _disk("output", tmp_path / "not" / "there", 2**60, "choose another --save-path")
    assert full.status == "warn"
    assert full.detail.endswith("; expected 1073741824.0 GiB")
    (tmp_path / "file").touch()
    (file,) = _disk("output", tmp_path / "file" / "results", 1, "choose another --save-path")
    assert file.status == "warn"
    assert file.detail == f"{tmp_path / 'file'} is not a folder you may write to"


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_90", "sm_100"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((9, 0), ["sm_90a"], True),
        ((7, 5), [], False),
    ],
)
def test_which_gpus_a_build_of_torch_runs_on(
    capability: tuple[int, int], archs: list[str], runs: bool
) -> None:
    assert _has_code_for(capability, archs) is runs


def test_cpuinfo_of_two_cores() -> None:
    text = (
        "processor\t: 0\nmodel name\t: A: B\nflags\t\t: avx2 amx_bf16\n\nprocessor\t: 1\nmodel name\t: C\n\n"
    )
    assert _cpuinfo(text) == {"processor": "0", "model name": "A: B", "flags": "avx2 amx_bf16"}


def test_the_report_is_aligned() -> None:
    findings = [
        Finding("python", "ok", "3.11.7"),
        Finding("video encoder", "missing", "No module named 'av'", "pip install av"),
    ]
    assert format_findings(findings).splitlines() == [
        "ok       python         3.11.7",
        "missing  video encoder  No module named 'av'",
        "                          pip install av",
    ]
    assert (
        json.loads(json.dumps([dataclasses.asdict(finding) for finding in findings]))[1]["status"]
        == "missing"
    )
