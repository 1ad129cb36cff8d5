"""A server on engines: what is built is used, the rest runs eager under `auto` and is refused otherwise."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_serve import ROOT, Server

from hyvideo_rt.video import read_metadata


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a user who has built one size."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.delenv("XDG_CACHE_HOME", raising=False)
        patch.delenv("XDG_CONFIG_HOME", raising=False)
        command = [sys.executable, "-m", "hyvideo_rt.cli.main", "build", "--model", "tiny"]
        command += ["--preset", "tiny-square", "--backend", "openvino"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        yield home


def sizes(server: Server) -> dict[str, tuple[bool, bool, str | None]]:
    (model,) = server.http.get("/v1/models").json()["data"]
    return {size["preset"]: (size["built"], size["possible"], size["backend"]) for size in model["sizes"]}


def backend_of(server: Server, home: Path, preset: str) -> object:
    video = server.wait_end(server.create(preset=preset, steps=2))
    file = home / f"{preset}.mp4"
    file.write_bytes(server.http.get(f"/v1/videos/{video['id']}/content").content)
    return read_metadata(file)["backend"]


def test_auto_mixes_engines_and_eager_by_size(home: Path) -> None:
    server = Server(home / "auto").wait_ready()
    try:
        found = sizes(server)
        assert found["tiny-square"] == (True, True, "openvino")
        assert found["tiny-landscape"] == (False, True, "eager")
        for preset, backend in (("tiny-square", "openvino"), ("tiny-landscape", "eager")) * 2:
            assert backend_of(server, home, preset) == backend
    finally:
        server.kill()


def test_a_backend_that_was_named_is_insisted_on(home: Path) -> None:
    server = Server(home / "named", "--backend", "openvino").wait_ready()
    try:
        assert sizes(server)["tiny-landscape"] == (False, False, None)
        refused = server.http.post("/v1/videos", json={"prompt": "x", "preset": "tiny-landscape"})
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "size_not_built"
        assert "hyvideo-rt build --backend openvino --preset 64x96x17" in refused.json()["error"]["message"]
        assert backend_of(server, home, "tiny-square") == "openvino"
    finally:
        server.kill()
