"""A model by its hub id, from a hub on this machine: pinned, no pickles, and then from the cache."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import pytest

FOLDER = Path(str(files("hyvideo_rt") / "tiny_model"))
REVISION = "0123456789abcdef0123456789abcdef01234567"
PICKLES = ["transformer/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.pt"]


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download needs: the list of files, and each file."""

    requests: list[str] = []  # noqa: RUF012 - one hub a test

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        self.requests.append(self.path)
        path = self.path.partition("?")[0]
        if path == f"/api/models/org/name/tree/{REVISION}":
            names = [str(file.relative_to(FOLDER)) for file in FOLDER.rglob("*") if file.is_file()] + PICKLES
            content = json.dumps(
                [{"type": "file", "path": name, "size": 1, "oid": ""} for name in names]
            ).encode()
        elif path == f"/api/models/org/name/revision/{REVISION}":
            content = json.dumps({"id": "org/name", "sha": REVISION}).encode()
        elif (name := path.partition(f"/resolve/{REVISION}/")[2]) and (FOLDER / name).is_file():
            content = (FOLDER / name).read_bytes()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def generate(cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hyvideo_rt.cli.main", "generate", "--prompt", "x", "--infer-steps", "1"]
    return subprocess.run(
        [*command, "--model-base", "org/name", "--revision", REVISION, "--json"],
        cwd=cwd,
        env=os.environ | {"HF_HOME": str(cwd / "home"), "HF_HUB_DISABLE_XET": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_hub_id_is_downloaded_once_and_no_pickle_ever(hub: str, tmp_path: Path) -> None:
    done = generate(tmp_path, HF_ENDPOINT=hub)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / json.loads(done.stdout)["path"]).is_file()
    assert any(request.endswith("model_index.json") for request in Hub.requests)
    assert all(REVISION in request for request in Hub.requests if "org/name" in request)
    assert not [request for request in Hub.requests if request.endswith((".bin", ".pt"))]

    downloads = len(Hub.requests)
    again = generate(tmp_path, HF_ENDPOINT=hub, HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert len(Hub.requests) == downloads
    assert json.loads(again.stdout)["fingerprint"] == json.loads(done.stdout)["fingerprint"]
