"""Files that are no engines, and libraries that phone home."""

import subprocess
import sys
from pathlib import Path

import pytest

from hyvideo_rt.engines.inductor import InductorEngine
from hyvideo_rt.errors import EngineError


@pytest.mark.parametrize("content", [b"", b"not a package"])
def test_a_package_that_cannot_be_loaded_is_an_error_of_the_engine(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "double_block-x" / "engine.pt2"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(EngineError, match="double_block-x cannot be loaded"):
        InductorEngine(path)


def test_openvino_is_imported_without_its_telemetry() -> None:
    code = (
        "import sys; from hyvideo_rt.engines.openvino import library; library().Core()\n"
        "print(sys.modules.get('openvino_telemetry'), 'openvino' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None True"
