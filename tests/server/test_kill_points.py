"""A kill at any moment loses nothing. Here some points of all; `kill_points.py --all` takes every one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kill_defects import DEFECTS

POINTS = 24


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """In a process of its own: it forks, and a process that has threads must not."""
    command = [sys.executable, str(Path(__file__).with_name("kill_points.py")), "--points", str(POINTS)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ran.stdout, ran.stderr
    content: dict[str, Any] = json.loads(ran.stdout)
    return content


def test_nothing_is_lost_or_done_twice(result: dict[str, Any]) -> None:
    assert result["violations"] == []
    assert result["points"] > POINTS * 3 // 4, result["not_reached"]  # a busy machine may miss some
    assert result["server_points"] > result["worker_points"] > 0


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(result: dict[str, Any], name: str) -> None:
    assert DEFECTS[name].shown in result["defects"][name]
