"""What a compiler does to its process, it does to another one than the benchmark's."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hyvideo_rt.bench.building import build, build_here, built
from hyvideo_rt.bench.networks import embedded, step, step_inputs
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import target_for
from hyvideo_rt.engine_set import specs_of
from hyvideo_rt.errors import EngineError
from hyvideo_rt.pipeline import Precision

CPU, BUCKET = torch.device("cpu"), Bucket(64, 64, 17)


def test_engines_that_were_built_apart_compute_what_the_network_does(tmp_path: Path) -> None:
    """From the folder, a second time without building."""
    networks = embedded()
    target = target_for("openvino", Precision.default(CPU), CPU)
    specs = [s for s in specs_of(networks.config, BUCKET, target) if s.component != "vae_decoder_tile"]
    inputs = step_inputs(networks, BUCKET)
    expected = step(networks.dit, inputs)()
    engines = built(networks.config, specs, target, CPU, tmp_path)(networks.dit, networks.vae)
    got = step(networks.dit, inputs, engines.blocks(BUCKET))()
    assert (got - expected).norm() < 1e-4 * expected.norm()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "engines").rglob("engine.*")}
    assert [manifest.spec for manifest in build_here(networks.config, specs, CPU, tmp_path)] == specs
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_a_library_that_is_missing_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    target = target_for("tensorrt", Precision.default(CPU), CPU)
    specs = specs_of(embedded().config, BUCKET, target)
    with pytest.raises(EngineError, match="needs the package tensorrt"):
        build(embedded().config, specs, CPU, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_openvino_is_imported_without_its_telemetry() -> None:
    code = (
        "import sys, torch; from hyvideo_rt.bench.peers import import_libraries\n"
        "import_libraries(torch.device('cpu'))\n"
        "print(sys.modules.get('openvino_telemetry'), 'openvino' in sys.modules, 'diffusers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "None True True"
