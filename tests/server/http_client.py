"""A client of the HTTP application on a stub worker, and what tests often ask of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from stubs import AUTH, KEY, ended, stub_settings, wait_for, wait_warm

from hyvideo_rt.server.app import make_app
from hyvideo_rt.server.service import Service
from hyvideo_rt.server.settings import Limits


class Client(TestClient):
    """Carries the key; `service` is what answers."""

    service: Service


LIMITS = Limits(
    queue_jobs=3,
    watchdog_floor_s=5,
    heartbeat_s=5,
    min_free_bytes=0,
    drain_s=5,
    sync_s=5,
    job_s=1000,
    sweep_every_s=3600,
)


def create(client: Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/videos", json={"prompt": "a cat", **fields})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def finished(client: Client, **fields: Any) -> dict[str, Any]:
    video = create(client, **fields)
    ended(client.service, video["id"])
    body: dict[str, Any] = client.get(f"/v1/videos/{video['id']}").json()
    return body


def assert_error(answer: Any, status: int, code: str, param: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["error"]["code"], body["error"]["param"]) == (code, param)


def events_of(text: str) -> list[dict[str, Any]]:
    blocks = [block for block in text.split("\n\n") if block.startswith("event: video\ndata: ")]
    return [json.loads(block.partition("data: ")[2]) for block in blocks]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Client]:
    service = Service(stub_settings(folder, keys=("another-key-for-tests", KEY), limits=LIMITS))
    with Client(make_app(service), headers=AUTH) as client:
        client.service = service
        wait_warm(service)
        yield client
    service.close()


@pytest.fixture
def client(shared: Client) -> Client:
    """An empty server."""
    for job in shared.service.store.page(None, 1000, newest_first=True):
        shared.service.desk.delete(job.id)
    wait_for(lambda: shared.service.supervisors[0].job is None)
    return shared
