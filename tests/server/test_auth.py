"""Who gets in where no key is asked for; with keys see test_http.py."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from stubs import stub_settings

from hyvideo_rt.server.app import make_app
from hyvideo_rt.server.service import Service


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:8000"}, 200),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "127.0.0.1:8000", "Origin": "https://evil.example"}, 403),
        ({"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:9000"}, 403),
        ({"Host": "127.0.0.1:8000", "Origin": "null"}, 403),
        ({"Host": "127.0.0.1:8000", "Origin": "http://["}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": ""}, 403),
    ],
)
def test_without_keys_no_other_site_gets_in(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    service = Service(stub_settings(tmp_path))
    try:
        with TestClient(make_app(service)) as keyless:
            answer = keyless.post("/v1/videos", data={"prompt": "a cat", "steps": "no"}, headers=headers)
            assert answer.status_code == (400 if status == 200 else status)
            assert answer.json()["error"]["code"] == ("invalid_value" if status == 200 else "foreign_origin")
            assert keyless.get("/live", headers=headers).status_code == 200
    finally:
        service.close()
