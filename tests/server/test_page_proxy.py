"""What stands between a browser and the page's process, on a stub of that process."""

import base64
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from stubs import AUTH, KEY, QUICK, stub_settings, wait_for

from hyvideo_rt.server import page_process
from hyvideo_rt.server.app import make_app
from hyvideo_rt.server.page_process import PageProcess
from hyvideo_rt.server.service import Service

COMMAND = (sys.executable, str(Path(__file__).with_name("stub_page.py")))


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The application on a port of its own: clients for tests hold streams back, sockets do not."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(5)


@pytest.fixture(scope="module")
def page() -> Iterator[PageProcess]:
    page = PageProcess(COMMAND)
    page.start("http://127.0.0.1:1")
    yield page
    page.leave()


@pytest.fixture(scope="module")
def url(page: PageProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    service = Service(stub_settings(tmp_path_factory.mktemp("page"), keys=(KEY,), limits=QUICK))
    with serving(make_app(service, page)) as url:
        wait_for(lambda: httpx.get(f"{url}/ui/", headers=AUTH).status_code == 200)
        yield url
    service.leave()


def basic(password: str, user: str = "anyone") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def echo(url: str, **how: Any) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(url, headers=AUTH, **how).json()
    return answer


@pytest.mark.parametrize("path", ["/", "/ui", "/ui/", "/ui/en/", "/favicon.ico"])
def test_pages_need_the_key_and_browsers_may_log_in(url: str, path: str) -> None:
    for headers in ({}, basic(KEY + "x"), basic(""), {"Authorization": "Basic %%%"}, {"Authorization": KEY}):
        answer = httpx.get(url + path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
        assert answer.json()["error"]["code"] == "invalid_api_key"
    for headers in (basic(KEY), basic(KEY, user=""), AUTH):
        assert httpx.get(url + path, headers=headers).status_code == 200


def test_the_api_takes_no_password(url: str) -> None:
    """A browser sends it along with what any site's form posts; nobody's form sends a Bearer."""
    for method, path in (("GET", "/v1/videos"), ("POST", "/v1/videos"), ("GET", "/metrics")):
        answer = httpx.request(
            method, url + path, headers=basic(KEY), data={"prompt": "x"} if method == "POST" else None
        )
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_the_page_gets_the_request_but_neither_key_nor_hops(url: str, page: PageProcess) -> None:
    headers = {**AUTH, "Connection": "keep-alive, X-Hop", "X-Hop": "1", "TE": "trailers", "X-Kept": "yes"}
    answer = httpx.post(f"{url}/ui/a%2Fb?c=%20d", headers=headers, content=b"12345")
    seen = answer.json()
    assert (seen["method"], seen["target"], seen["bytes"]) == ("POST", "/ui/a%2Fb?c=%20d", 5)
    assert seen["headers"]["x-kept"] == "yes"
    assert seen["headers"]["host"] == url.removeprefix("http://")
    assert not {"authorization", "x-hop", "te"} & set(seen["headers"])
    assert answer.headers["x-public"] == "2"
    assert "x-private" not in answer.headers
    assert answer.headers["x-request-id"]
    assert seen["told"] == {"server": "http://127.0.0.1:1", "key": page.key, "socket": page.socket}
    assert page.key not in str(seen["argv"])


def test_the_key_of_the_page_opens_the_api(url: str, page: PageProcess) -> None:
    assert httpx.get(f"{url}/v1/videos", headers={"Authorization": f"Bearer {page.key}"}).status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        "/ui/../v1/models",
        "/ui/%2e%2e/v1/models",
        "/ui//127.0.0.1:9/x",
        "/ui/http://127.0.0.1:9/x",
        "/ui/@127.0.0.1:9",
    ],
)
def test_it_reaches_nothing_else(url: str, target: str) -> None:
    """Whatever the path says, the stub answers, and sees the path as it was sent."""
    headers = {**AUTH, "Host": "127.0.0.1:9"}
    with httpx.Client() as client:
        request = client.build_request("GET", url, headers=headers, extensions={"target": target.encode()})
        assert client.send(request).json()["target"].rstrip("?") == target


@pytest.mark.parametrize("path", ["/uix", "/v1/nothing", "/ui2/", "/file=/etc/passwd", "/gradio_api/config"])
def test_other_paths_are_the_servers_own(url: str, path: str) -> None:
    assert httpx.get(url + path, headers=AUTH).json()["error"]["code"] == "not_found"


def test_metrics_name_the_page_and_no_path(url: str) -> None:
    httpx.get(f"{url}/ui/some/path", headers=AUTH)
    text = httpx.get(f"{url}/metrics", headers=AUTH).text
    assert 'method="GET",route="/ui",status="200"' in text
    assert "some/path" not in text


def test_the_limit_on_bodies_holds(url: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 65536

    assert httpx.post(f"{url}/ui/x", headers=AUTH, content=b" " * (2 << 20)).status_code == 413
    with contextlib.suppress(httpx.TransportError):  # it hangs up on whoever goes on sending
        assert httpx.post(f"{url}/ui/x", headers=AUTH, content=endless()).status_code == 413


def test_events_pass_when_they_come(url: str) -> None:
    with httpx.stream("GET", f"{url}/ui/events", headers=AUTH, timeout=10) as stream:
        pieces = stream.iter_text()
        assert next(pieces) == "data: 1\n\n", "the stub has not said more yet"
        assert httpx.get(f"{url}/ui/go", headers=AUTH).text == "went"
        assert next(pieces) == "data: 2\n\n"


def test_a_page_that_dies_is_started_again_and_meanwhile_says_so(url: str, page: PageProcess) -> None:
    old = page.pid
    failed = httpx.get(f"{url}/ui/die", headers=AUTH)
    assert (failed.status_code, failed.json()["error"]["code"]) == (502, "page_failed")
    down = httpx.get(f"{url}/ui/", headers={**AUTH, "Accept": "text/html"})
    assert down.status_code == 503
    assert down.headers["retry-after"]
    assert 'http-equiv="refresh"' in down.text
    assert httpx.get(f"{url}/ui/", headers=AUTH).json()["error"]["code"] == "page_not_ready"
    assert httpx.get(f"{url}/v1/videos", headers=AUTH).status_code == 200
    wait_for(lambda: httpx.get(f"{url}/ui/", headers=AUTH).status_code == 200)
    assert page.pid != old


def test_a_page_that_keeps_dying_is_left_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_process, "GIVE_UP_DEATHS", 2)
    page = PageProcess((sys.executable, "-c", "raise SystemExit(1)"))
    page.start("http://127.0.0.1:1")
    assert page._thread
    page._thread.join(10)
    assert not page._thread.is_alive()
    page.leave()


@pytest.mark.parametrize("how", ["told", "orphaned"])
def test_it_ends_with_the_server(how: str) -> None:
    page = PageProcess(COMMAND)
    assert os.stat(Path(page.socket).parent).st_mode & 0o077 == 0
    page.start("http://127.0.0.1:1")
    wait_for(lambda: Path(page.socket).exists())
    process = page._process
    assert process
    assert process.stdin
    if how == "orphaned":  # the kernel closes the pipe of a killed server
        page._leaving.set()
        process.stdin.close()
    else:
        page.leave()
    wait_for(lambda: process.poll() is not None)
    assert process.returncode == (0 if how == "orphaned" else -signal.SIGKILL)
    page.leave()
    assert not Path(page.socket).parent.exists()


def test_without_a_page_the_root_says_what_this_is(tmp_path: Path) -> None:
    service = Service(stub_settings(tmp_path, limits=QUICK))
    with serving(make_app(service)) as url:
        assert httpx.get(url).json()["page"] == "none; start the server with --ui"
        assert httpx.get(f"{url}/ui/").status_code == 404
    service.leave()
