"""`hyvideo-rt ui` from its flags and the original's variables; the page itself is in tests/ui."""

import pytest

from hyvideo_rt.cli import ui
from hyvideo_rt.cli.main import main
from hyvideo_rt.errors import InvalidRequest

KEY = "a-key-for-tests-only"


@pytest.mark.parametrize(
    ("host", "port", "environment", "expected"),
    [
        (None, None, {}, ("127.0.0.1", 8081)),
        (None, None, {"SERVER_NAME": "0.0.0.0", "SERVER_PORT": "7860"}, ("0.0.0.0", 7860)),
        ("::1", 9000, {"SERVER_NAME": "0.0.0.0", "SERVER_PORT": "7860"}, ("::1", 9000)),
        ("::1", 9000, {"SERVER_PORT": "what"}, ("::1", 9000)),
        (None, None, {"SERVER_NAME": "", "SERVER_PORT": ""}, ("127.0.0.1", 8081)),
    ],
)
def test_flags_come_before_the_original_s_variables(
    host: str | None, port: int | None, environment: dict[str, str], expected: tuple[str, int]
) -> None:
    assert ui.address(host, port, environment) == expected


@pytest.mark.parametrize("port", ["what", "0", "-1", "70000", "٣"])
def test_a_port_that_is_none(port: str) -> None:
    with pytest.raises(InvalidRequest, match="expected"):
        ui.address(None, None, {"SERVER_PORT": port})


def test_an_open_address_needs_a_password() -> None:
    ui.check("http://127.0.0.1:8000", "127.0.0.1", ())
    ui.check("https://api.example/", "0.0.0.0", (KEY,))
    with pytest.raises(InvalidRequest, match="without a key"):
        ui.check("http://127.0.0.1:8000", "0.0.0.0", ())


@pytest.mark.parametrize(
    "server", ["", "localhost:8000", "ftp://x", "http://", "http://me:secret@host", "http://host/v1"]
)
def test_a_server_s_address_is_one_of_http_without_more(server: str) -> None:
    with pytest.raises(InvalidRequest, match="expected an address"):
        ui.check(server, "127.0.0.1", ())


def test_the_original_s_default_address_is_refused_without_a_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SERVER_NAME", "0.0.0.0")
    monkeypatch.delenv("HYVIDEO_API_KEY", raising=False)
    assert main(["ui"]) == 2
    assert "set HYVIDEO_API_KEY" in capsys.readouterr().err


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "find_spec", lambda name: None if name == "gradio" else object())
    with pytest.raises(InvalidRequest, match="needs gradio") as missing:
        ui.page_command()
    assert "pip install 'hyvideo-rt[ui]'" in str(missing.value)
