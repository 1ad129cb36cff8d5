"""What ends a process ends another one than the benchmark's, and nothing lives on after it."""

import ctypes
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyvideo_rt.bench.apart import apart
from hyvideo_rt.bench.markdown import ROOT
from hyvideo_rt.errors import BuildFailed, EngineError


def crash() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(3)


def refuse() -> None:
    raise BuildFailed("it differs from the module\n  report this")


def stumble() -> None:
    raise ZeroDivisionError("division by zero")


def wait(flag: Path) -> None:
    flag.write_text(str(os.getpid()))
    time.sleep(600)


def test_nobody_builds_on_for_a_benchmark_that_was_killed(tmp_path: Path) -> None:
    flag = tmp_path / "pid"
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from hyvideo_rt.bench.apart import apart\n"
        "from tests.bench.test_apart import wait\n"
        f"if __name__ == '__main__':\n    apart(wait, Path({str(flag)!r}))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(script)], env=environment) as process:
        assert eventually(lambda: flag.exists() and bool(flag.read_text()))
        process.kill()
    builder = Path("/proc") / flag.read_text()
    assert eventually(lambda: not builder.exists() or ") Z " in (builder / "stat").read_text())


def eventually(true: Callable[[], bool], seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_a_segfault_is_a_reason_and_leaves_its_stack(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match="was ended by SIGSEGV"):
        apart(crash)
    assert re.search(r"frame #\d+: .*_ctypes", capfd.readouterr().err)
    with pytest.raises(EngineError, match="ended with status 3"):
        apart(leave)


def test_errors_come_back_as_they_were() -> None:
    with pytest.raises(BuildFailed, match="differs from the module"):
        apart(refuse)
    with pytest.raises(EngineError, match="ZeroDivisionError: division by zero"):
        apart(stumble)
