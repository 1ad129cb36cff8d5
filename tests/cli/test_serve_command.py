"""From the flags of `serve` to settings: keys, devices, sizes to warm, and what the worker is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyvideo_rt.buckets import PRESETS, Bucket
from hyvideo_rt.cli.keys import api_keys
from hyvideo_rt.cli.main import build_parser, main
from hyvideo_rt.cli.serve import devices, settings_of
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.server.settings import Settings

KEY = "sixteen-characters-or-more"


def settings(*flags: str) -> Settings:
    return settings_of(build_parser().parse_args(["serve", "--model", "tiny", "--device", "cpu", *flags]))


def test_what_is_left_out() -> None:
    found = settings()
    assert (found.host, found.port, found.api_keys) == ("127.0.0.1", 8000, ())
    assert found.warm == (Bucket(64, 64, 17),)
    assert found.model == "tiny"
    assert (found.limits.queue_jobs, found.limits.attempts, found.limits.min_free_bytes) == (100, 2, 1 << 30)


def test_flags_reach_the_limits() -> None:
    found = settings("--max-queue-jobs", "7", "--retention-hours", "2", "--drain-timeout", "9")
    assert (found.limits.queue_jobs, found.limits.retention_s, found.limits.drain_s) == (7, 7200, 9)


@pytest.mark.parametrize(
    "flags",
    [
        ("--max-queue-jobs", "0"),
        ("--max-job-seconds", "nan"),
        ("--retention-hours", "-1"),
        ("--port", "65536"),
    ],
)
def test_limits_that_make_no_sense(flags: tuple[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="expected"):
        settings(*flags)


def test_sizes_to_warm() -> None:
    found = settings("--warm", "tiny-square, 64x80x5,tiny-square")
    assert found.warm == (PRESETS["tiny-square"], Bucket(64, 80, 5))
    with pytest.raises(InvalidRequest, match="got the size 'nothing'"):
        settings("--warm", "nothing")


def test_the_worker_gets_the_flags_and_its_device_but_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYVIDEO_API_KEY", KEY)
    found = settings("--backend", "eager", "--warm", "tiny-square")
    assert found.api_keys == (KEY,)
    assert "HYVIDEO_API_KEY" not in os.environ, "which workers inherit"
    (worker,) = found.workers
    flags = json.loads(worker.command[-1])
    assert (flags["device"], flags["backend"], flags["warm"], flags["model"]) == (
        "cpu",
        "eager",
        "tiny-square",
        "tiny",
    )
    assert KEY not in " ".join(worker.command)


def test_keys_from_a_file_that_is_ours_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the team\n{KEY}\n\nanother-{KEY}\n")
    for mode in (0o644, 0o620, 0o601):
        file.chmod(mode)
        with pytest.raises(InvalidRequest, match="chmod 600"):
            api_keys("", str(file))
    file.chmod(0o440)  # as containers and services hand over secrets
    assert api_keys("", str(file))[0] == KEY
    file.chmod(0o600)
    assert api_keys("", str(file)) == (KEY, f"another-{KEY}")
    assert api_keys("first-" + KEY, str(file))[0] == "first-" + KEY
    file.write_text("# none\n")
    with pytest.raises(InvalidRequest, match="got no key"):
        api_keys("", str(file))
    with pytest.raises(InvalidRequest, match="cannot read API keys"):
        api_keys("", str(tmp_path / "missing"))


def test_devices() -> None:
    assert devices("cpu") == ["cpu"]
    with pytest.raises(InvalidRequest, match="each device once"):
        devices("cpu,cpu")
    with pytest.raises(InvalidRequest, match="got device 'tpu'"):
        devices("tpu")


def test_every_gpu_gets_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert devices("auto") == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert devices("auto") == ["cpu"]


def test_an_open_address_without_a_key_ends_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = ["serve", "--model", "tiny", "--host", "0.0.0.0", "--data-dir", str(tmp_path / "data")]
    assert main(flags) == 2
    assert "without an API key" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_without_its_libraries_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['uvicorn'] = None\n"
    code += "from hyvideo_rt.cli.main import main; sys.exit(main(['serve']))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "got no module 'uvicorn'" in ended.stderr
    assert "pip install 'hyvideo-rt[serve]'" in ended.stderr
