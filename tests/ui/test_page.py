"""The page as its users meet it: a server process, its page's process, and a real headless browser.

Whoever has no Chromium sees these tests skipped, with the reason; those of the client run anywhere.
"""

import contextlib
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pages import KEY, process, wait_for_page

from hyvideo_rt.bench.server_process import children, free_port
from hyvideo_rt.ui.client import Client, Refused, Video, Wanted

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """`serve --ui` with a key and a short queue: its address and its process."""
    folder, port = tmp_path_factory.mktemp("page"), free_port()
    flags = ["--model", "tiny", "--device", "cpu", "--data-dir", str(folder / "data"), "--port", str(port)]
    flags += ["--min-free-gib", "0", "--max-queue-jobs", "2", "--drain-timeout", "1", "--ui"]
    url, log = f"http://127.0.0.1:{port}", folder / "log"
    with process(log, "serve", *flags, HYVIDEO_API_KEY=KEY) as server:
        wait_for_page(f"{url}/ready", log)
        wait_for_page(f"{url}/ui/en/", log, auth=("", KEY))
        yield url, server.pid


@pytest.fixture(scope="module")
def server(running: tuple[str, int]) -> str:
    return running[0]


@contextlib.contextmanager
def slow_worker(server: int) -> Iterator[None]:
    """Inside, it runs for a tenth of the time: or its video is over before a browser has looked twice."""
    pids = [child.pid for child in children(server)]
    (worker,) = (pid for pid in pids if b"hyvideo_rt.cli.worker" in Path(f"/proc/{pid}/cmdline").read_bytes())
    over = threading.Event()

    def hold() -> None:
        while not over.is_set():
            os.kill(worker, signal.SIGSTOP)
            over.wait(0.09)
            os.kill(worker, signal.SIGCONT)
            time.sleep(0.01)

    holding = threading.Thread(target=hold)
    holding.start()
    try:
        yield
    finally:
        over.set()
        holding.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    reason = "needs playwright (pip install 'hyvideo-rt[dev]') and a Chromium among your programs"
    sync_api = pytest.importorskip("playwright.sync_api", reason=reason)
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(reason)  # a browser is no package of pip's; the client and the words are tested without
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


WANTED = Wanted("a red circle", "64x64", 17, 3, 5, 6.0, 1.0, 7.0, "")


def ended(client: Client, video_id: str) -> Video:
    deadline = time.monotonic() + 60
    while (video := client.retrieve(video_id)).is_active:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return video


def test_a_video_from_order_to_deletion(server: str) -> None:
    client = Client(server, KEY)
    model = client.model()
    assert (model.id, model.default_size, model.default_frames) == ("tiny", "64x64", 17)
    assert [size.size for size in model.sizes if size.warm] == ["64x64"]
    made = ended(client, client.create(WANTED).id)
    assert made.is_completed
    assert (made.seed, made.steps, made.size, made.progress, made.error) == (5, 3, "64x64", 100, None)
    assert client.latest(1)[0] == made
    client.delete(made.id)
    with pytest.raises(Refused) as gone:
        client.retrieve(made.id)
    assert (gone.value.status, gone.value.code) == (404, "video_not_found")


def test_cancelling(server: str) -> None:
    client = Client(server, KEY)
    slow = Wanted(**{**WANTED.to_json(), "steps": 1000, "seed": None})
    cancelled = client.cancel(client.create(slow).id)
    assert cancelled.error
    assert (cancelled.status, cancelled.error.code) == ("failed", "cancelled")


def test_the_server_s_refusals(server: str) -> None:
    client = Client(server, KEY)
    with pytest.raises(Refused) as bad:
        client.create(Wanted(**{**WANTED.to_json(), "seed": -7}))
    assert (bad.value.status, bad.value.param) == (400, "seed")
    with pytest.raises(Refused) as stranger:
        Client(server, "not the key at all").model()
    assert (stranger.value.status, stranger.value.code) == (401, "invalid_api_key")


class Visit:
    """A tab, and all that went wrong in it. Closing checks that nothing did, nobody else was asked."""

    def __init__(self, browser: Any, server: str, width: str, language: str = "en-US") -> None:
        size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
        login = {"username": "", "password": KEY}
        self.context = browser.new_context(viewport=size, locale=language, http_credentials=login)
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.add(request.url))
        self.server = server
        self.page.goto(server)
        self.page.wait_for_selector("textarea")
        self.page.wait_for_function("document.querySelector('#hv-size input')?.value")

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def make(self, prompt: str, steps: int) -> None:
        self.page.locator("textarea").first.fill(prompt)
        number = self.page.locator("input[type=number]").first
        number.fill(str(steps))
        number.press("Tab")
        self.page.locator("button.primary").click()

    def playing(self) -> str:
        """The address of the video that plays, once its time advances."""
        video = self.page.locator(".hv-player video")
        video.wait_for()
        start = "document.querySelector('.hv-player video').currentTime"
        self.page.wait_for_function(f"{start} > 0.1")
        return str(video.get_attribute("src"))

    def close(self) -> None:
        overflow = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        self.context.close()
        assert overflow <= 0, "it scrolls sideways"
        assert not self.complaints
        assert {url for url in self.asked if not url.startswith((self.server, "data:", "blob:"))} == set()


@pytest.fixture(params=WIDTHS)
def visit(request: pytest.FixtureRequest, browser: Any, server: str) -> Iterator[Visit]:
    visit = Visit(browser, server, request.param)
    yield visit
    visit.close()


def test_somebody_types_a_prompt_watches_plays_and_cancels_another(
    visit: Visit, running: tuple[str, int]
) -> None:
    page = visit.page
    visit.make("a red circle moves right on a white background", 4)
    first = visit.playing()
    assert page.locator(".hv-parameters dd").nth(2).inner_text() == "4"

    with slow_worker(running[1]):
        visit.make("a blue square moves up", 100)
        status = page.locator(".hv-card .hv-status").first
        page.wait_for_function(
            "/^Denoising · \\d+ of 100 · .* left$/.test(document.querySelector('.hv-status')?.innerText)"
        )
        before = step_of(status.inner_text())
        page.wait_for_function(
            f"Number(/(\\d+) of/.exec(document.querySelector('.hv-status').innerText)[1]) > {before}"
        )
        assert page.locator(".hv-card progress").get_attribute("value") is not None
        page.locator("[data-do=cancel]").click()
        page.locator(".hv-failed", has_text="Cancelled.").wait_for()
    assert visit.playing() == first, "what plays goes on"
    page.locator("[data-do=dismiss]").click()
    page.locator(".hv-card").wait_for(state="detached")


def step_of(status: str) -> int:
    found = re.search(r"(\d+) of", status)
    assert found
    return int(found[1])


def test_the_gallery_plays_repeats_and_deletes(browser: Any, server: str) -> None:
    visit = Visit(browser, server, "desk")
    page = visit.page
    visit.make("a green triangle <b>& friends</b>", 3)
    visit.playing()
    newest = page.locator(".hv-thumb").first
    assert newest.inner_text() == "a green triangle <b>& friends</b>"
    visit.make("a black square", 5)
    page.locator(".hv-thumb", has_text="a black square").first.wait_for()
    page.locator(".hv-thumb", has_text="a green triangle").first.click()
    page.locator(".hv-player .hv-prompt", has_text="a green triangle").wait_for()
    visit.playing()
    page.locator("[data-do=reuse]").click()
    page.wait_for_function("document.querySelector('textarea').value.startsWith('a green')")
    assert page.locator("input[type=number]").first.input_value() == "3"
    shown = str(page.locator(".hv-player video").get_attribute("src")).split("/")[-1]
    with page.expect_download() as download:
        page.locator(".hv-player a[download]").click()
    assert download.value.suggested_filename == f"{shown}.mp4"
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("[data-do=delete]").click()
    page.locator(f".hv-thumb[data-id={shown}]").wait_for(state="detached")
    assert page.locator(".hv-player video").count() == 0
    visit.close()


def test_the_language_is_the_browser_s_and_can_be_switched(browser: Any, server: str) -> None:
    visit = Visit(browser, server, "phone", "zh-CN")
    page = visit.page
    assert page.url.endswith("/ui/zh/")
    assert page.locator("button.primary").inner_text() == "生成视频"
    page.locator("textarea").first.fill("一只猫")
    page.get_by_role("button", name="English").click()
    page.wait_for_url("**/ui/en/")
    page.get_by_role("button", name="Make the video").wait_for()
    page.wait_for_function("document.querySelector('textarea')?.value === '一只猫'")
    assert page.evaluate("document.documentElement.lang") == "en"
    visit.close()


def test_refusals_are_read_in_the_language_of_the_page(browser: Any, server: str) -> None:
    """One is being made, two wait, the fourth is one too many. A prompt that is missing is said at once."""
    visit = Visit(browser, server, "desk", "zh-CN")
    page = visit.page
    page.locator("button.primary").click()
    page.locator(".hv-notice", has_text="请先写提示词。").wait_for()
    for i in range(4):
        visit.make("a red square", 100)
        page.wait_for_function(f"document.querySelectorAll('.hv-card').length >= {min(i + 1, 3)}")
    page.locator(".hv-notice", has_text="排队的视频太多了。").wait_for()
    assert re.search(r"请在 \d+ 秒后重试", page.locator(".hv-notice").inner_text())
    assert page.locator(".hv-status", has_text="排队中").count() >= 1
    page.evaluate("document.querySelectorAll('[data-do=cancel]').forEach(button => button.click())")
    page.wait_for_timeout(700)
    visit.close()


def test_the_page_alone_listens_where_the_original_does_and_waits_for_its_server(
    tmp_path: Any, browser: Any
) -> None:
    port, log = free_port(), tmp_path / "log"
    where = {"SERVER_NAME": "127.0.0.1", "SERVER_PORT": str(port)}
    with process(log, "ui", "--server", "http://127.0.0.1:9", **where):
        url = f"http://127.0.0.1:{port}"
        wait_for_page(f"{url}/ui/en/", log)
        assert httpx.get(f"{url}/ui/videos/video_0").status_code == 502
        page = browser.new_page()
        page.goto(url)
        page.locator(".hv-notice", has_text="The server does not answer.").wait_for()
        page.close()
