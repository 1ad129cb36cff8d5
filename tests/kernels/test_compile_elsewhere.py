"""The interpreter takes what a compiler may not: every kernel is compiled for GPUs that are elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("compile_elsewhere.py")


@pytest.mark.parametrize("capability", [90, 120])
def test_every_kernel_compiles_and_keeps_to_its_registers(capability: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(capability)],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["missing"], "kernels that no operator here launches"
    stacks = {name: kernel["stack"] for name, kernel in found["kernels"].items()}
    assert stacks == dict.fromkeys(stacks, 0)
