"""The examples of docs/serving.md, as they are written there, and examples/, against a real server."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from PIL import Image

from hyvideo_rt.bench.server_process import free_port

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-key-for-tests-only"
READY_S, EXAMPLE_S = 60, 60
EXAMPLES = (ROOT / "docs/serving.md").read_text().partition("## Examples\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of a client: the address of a server that is ready, and its key."""
    port = free_port()
    data = tmp_path_factory.mktemp("serving") / "data"
    flags = ["--model", "tiny", "--device", "cpu", "--port", str(port), "--data-dir", str(data)]
    command = [sys.executable, "serve.py", *flags, "--min-free-gib", "0"]
    # One thread: on a busy machine several wait for each other, and these videos are small.
    inherited = os.environ | {"PYTHONPATH": str(ROOT), "HYVIDEO_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    with (data.parent / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=inherited, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_ready(url, server)
        # Programs of the environment that the tests run in come first, activated or not.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        yield os.environ | {"PATH": path, "HYVIDEO_URL": url, "HYVIDEO_API_KEY": KEY}
    finally:
        server.terminate()
        server.wait(30)


def wait_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert server.poll() is None, "it has ended"
        try:
            urllib.request.urlopen(f"{url}/ready", timeout=5)
            return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("it is not ready in time")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", EXAMPLES, re.DOTALL | re.MULTILINE)


def run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    """What it printed. Raises CalledProcessError; skips where a program that it needs is missing."""
    for program in [command[0], *(["curl", "jq"] if command[0] == "bash" else [])]:
        if shutil.which(program, path=environment["PATH"]) is None:
            # The reader's program, which pip cannot install. test_serve.py makes the same requests.
            pytest.skip(f"{program} is not installed here: this example is not run")
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=EXAMPLE_S
    )
    print(ended.stderr)  # for whoever reads a failure
    ended.check_returncode()
    return ended.stdout


def assert_video(path: Path) -> None:
    with av.open(str(path), "r") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 17
    assert max(int(frame.max()) - int(frame.min()) for frame in frames) > 50, "a picture"


def test_the_docs_have_the_examples_that_are_run() -> None:
    languages = re.findall(r"^```(\w+)$", EXAMPLES, re.MULTILINE)
    assert languages == ["bash"] * len(blocks("bash")) + ["python", "javascript"]
    assert len(blocks("bash")) == 3


def test_curl(environment: dict[str, str], tmp_path: Path) -> None:
    """One shell for all of them, as someone types them one after another."""
    script = "\n".join(["set -euo pipefail", *blocks("bash")])
    said = run(["bash", "-c", script], environment, tmp_path)
    assert_video(tmp_path / "circle.mp4")
    assert_video(tmp_path / "square.mp4")
    with Image.open(tmp_path / "circle.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (64, 64))
    events = re.findall(r'^data: .*"status":"(\w+)"', said, re.MULTILINE)
    assert events[-1] == "completed"
    assert '"deleted":true' in said
    assert "tiny-square: 64x64, " in said


def test_python(environment: dict[str, str], tmp_path: Path) -> None:
    (block,) = blocks("python")
    run([sys.executable, "-c", block], environment, tmp_path)
    assert_video(tmp_path / "triangle.mp4")


def test_javascript(environment: dict[str, str], tmp_path: Path) -> None:
    (block,) = blocks("javascript")
    run(["node", "--input-type=module", "--eval", block], environment, tmp_path)
    assert_video(tmp_path / "yellow.mp4")


@pytest.mark.parametrize(("runner", "name"), [("bash", "sh"), (sys.executable, "py"), ("node", "mjs")])
def test_longer_examples(runner: str, name: str, environment: dict[str, str], tmp_path: Path) -> None:
    example = str(ROOT / f"examples/video.{name}")
    said = run([runner, example, "a red circle moves right", "circle.mp4"], environment, tmp_path)
    assert said == "circle.mp4\n"
    assert_video(tmp_path / "circle.mp4")


@pytest.mark.parametrize(("runner", "name"), [("bash", "sh"), (sys.executable, "py"), ("node", "mjs")])
def test_longer_examples_say_what_went_wrong(
    runner: str, name: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run([runner, str(ROOT / f"examples/video.{name}"), "x" * 5000], environment, tmp_path)
    assert "expected at most 4096" in failed.value.stderr
    assert list(tmp_path.iterdir()) == []
