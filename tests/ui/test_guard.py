"""Who gets to the page, and what neither visitors nor the page's own process may do."""

import subprocess
import sys
from pathlib import Path

import pytest
from pages import KEY, ROOT
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from hyvideo_rt.ui.guard import Guard

BEYOND = "/ui/en/gradio_api/run/predict"


def guarded(*keys: str) -> TestClient:
    async def answer(request: object) -> PlainTextResponse:
        return PlainTextResponse("inside")

    app = Starlette(routes=[Route("/{rest:path}", answer, methods=["GET", "POST", "OPTIONS", "HEAD"])])
    return TestClient(Guard(app, keys), base_url="http://page.example:8081")


def test_the_key_is_the_password() -> None:
    client = guarded("another key", KEY)
    assert client.get("/").status_code == 401
    assert client.get("/").headers["www-authenticate"].startswith("Basic ")
    assert client.get("/", auth=("me", "wrong")).status_code == 401
    assert client.get("/", auth=("me", KEY)).text == "inside"
    assert guarded().get("/").text == "inside", "without a key there is no password"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://page.example:8081", 200),
        ("https://page.example:8081", 200),
        ("http://evil.example", 403),
        ("http://page.example", 403),
        ("http://page.example:8081.evil.example", 403),
        ("http://page.example:8081@evil.example", 403),
        ("null", 403),
    ],
)
def test_other_sites_may_not_act_with_the_browser_s_password(origin: str | None, status: int) -> None:
    headers = {"Origin": origin} if origin else {}
    assert guarded().post(BEYOND, headers=headers).status_code == status
    assert guarded().options(BEYOND, headers=headers).status_code == status
    assert guarded().get("/ui/en/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "door",
    ["file=/etc/passwd", "file/etc/passwd", "proxy=http://10.0.0.1/", "upload", "stream/x", "vibe-code"],
)
def test_doors_of_the_library_that_the_page_has_no_use_for_are_closed(door: str) -> None:
    assert guarded().get(f"/ui/en/gradio_api/{door}").status_code == 404
    assert guarded().get(f"/gradio_api/{door}").status_code == 404
    assert guarded().get("/ui/en/gradio_api/heartbeat/x").status_code == 200


def test_browsers_are_told_to_load_nothing_from_elsewhere() -> None:
    policy = guarded().get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "http" not in policy
    assert "*" not in policy


def test_nothing_of_the_model_is_in_the_page_s_process() -> None:
    check = (
        "import sys, hyvideo_rt.ui.run; "
        "ours = sorted(name for name in sys.modules if name.startswith('hyvideo_rt.')); "
        "print('torch' in sys.modules, "
        "{name.split('.')[1] for name in ours} - {'ui', 'keys', 'errors', 'buckets'})"
    )
    answer = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False set()"


def test_the_style_belongs_to_the_package() -> None:
    assert (Path(ROOT) / "hyvideo_rt" / "ui" / "page.css").is_file()
    assert '"ui/*.css"' in (ROOT / "pyproject.toml").read_text()
