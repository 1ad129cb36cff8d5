"""A database that is full, held, damaged or on a broken disk: clients are told, nothing is half written, the
worker stays warm, and the server goes on when it can.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from file_limits import file_size_limit
from stubs import ended, request_for, stub_service, traces, wait_for, wait_warm

from hyvideo_rt.server.app import make_app
from hyvideo_rt.server.database import DatabaseFailed
from hyvideo_rt.server.jobs import State
from hyvideo_rt.server.service import Service
from hyvideo_rt.server.store import IdempotencyKey

ID = f"/v1/videos/video_{0:032x}"


class Client(TestClient):
    """Of a server that is warm; `service` is what answers."""

    service: Service

    def ask(self, prompt: str = "a cat", key: str | None = None) -> Any:
        return self.post(
            "/v1/videos", json={"prompt": prompt}, headers={"Idempotency-Key": key} if key else {}
        )


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with stub_service(tmp_path, watchdog_floor_s=20, heartbeat_s=20, lease_s=1) as service:
        with Client(make_app(service), base_url="http://127.0.0.1") as client:
            client.service = service
            wait_warm(service)
            pragma(client, "busy_timeout = 50")
            yield client
        assert len(traces(tmp_path, "start")) == 1, "the worker has lived through it"


def pragma(client: Client, words: str) -> Any:
    with client.service.store._db.reading() as db:
        return db.execute(f"PRAGMA {words}").fetchone()


def assert_refused(answer: Any, code: str) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (503, code, "server_error")
    assert len(error["message"]) > 20
    assert answer.headers["Retry-After"]


def assert_works(client: Client) -> None:
    answer = client.ask()
    assert answer.status_code == 200, answer.text
    assert ended(client.service, answer.json()["id"]).state is State.COMPLETED


def test_a_full_database_refuses_and_goes_on_when_there_is_room(client: Client) -> None:
    client.service.supervisors[0].desk.store.claim = lambda *_: None  # type: ignore[method-assign]
    (pages,) = pragma(client, "page_count")
    pragma(client, f"max_page_count = {pages + 4}")
    answers = [client.ask("a long prompt " * 200, key=str(n)) for n in range(30)]
    accepted = [answer.json()["id"] for answer in answers if answer.status_code == 200]
    assert 0 < len(accepted) < 30
    for number, answer in enumerate(answers[len(accepted) :], len(accepted)):
        assert_refused(answer, "disk_full")
        assert client.service.store.find_key(IdempotencyKey(str(number), "any")) is None
    rows = client.get("/v1/videos?limit=100&order=asc").json()["data"]
    assert [row["id"] for row in rows] == accepted, "whole ones, and no others"
    assert 'hv_refused_total{code="disk_full"}' in client.get("/metrics").text
    del client.service.supervisors[0].desk.store.claim
    pragma(client, "max_page_count = 1000000")
    assert_works(client)
    assert all(ended(client.service, job_id).state is State.COMPLETED for job_id in accepted)


def test_a_commit_that_fails_leaves_nothing_and_the_next_one_works(client: Client, tmp_path: Path) -> None:
    """Its device had begun, and stops."""
    key = IdempotencyKey("a", "fingerprint")
    wait_for(lambda: client.service.desk._idle)
    with file_size_limit(4096), pytest.raises(DatabaseFailed) as failed:
        client.service.submit(request_for("steps 3000 0.01"), key)
    assert failed.value.code == "database_error"
    assert client.service.store.find_key(key) is None
    assert client.service.store.page(None, 10, newest_first=True) == []
    wait_for(lambda: traces(tmp_path, "seen"))
    assert_works(client)
    assert [len(traces(tmp_path, name)) for name in ("seen", "made")] == [2, 1]
    assert list((client.service.settings.data_dir / "videos" / "partial").iterdir()) == []


@contextmanager
def held(client: Client) -> Iterator[None]:
    """By another process that writes, such as a person with the sqlite3 command."""
    other = sqlite3.connect(client.service.settings.data_dir / "jobs.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


def test_a_database_that_another_process_holds(client: Client) -> None:
    with held(client):
        assert_refused(client.ask(), "database_busy")
        assert client.get("/ready").status_code == 200, "it is over in a moment"
        assert client.get("/v1/videos").status_code == 200
    assert_works(client)


def test_a_video_that_is_finished_while_the_database_is_held_is_not_lost(
    client: Client, tmp_path: Path
) -> None:
    job_id = client.ask("steps 3 0.1").json()["id"]
    wait_for(lambda: client.service.desk.board.position(job_id))
    with held(client):
        wait_for(lambda: traces(tmp_path, "made"))
        time.sleep(0.3)
        assert client.get(f"/v1/videos/{job_id}").json()["status"] == "in_progress"
    job = ended(client.service, job_id)
    assert (job.state, job.attempts) == (State.COMPLETED, 1)
    assert client.get(f"/v1/videos/{job_id}/content").status_code == 200


def test_what_could_not_be_completed_in_time_is_made_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, complete = client.service.store, client.service.store.complete
    failures: list[float] = []

    def failing(*args: Any) -> bool:
        if not failures or time.monotonic() - failures[0] < client.service.settings.limits.lease_s + 1:
            failures.append(time.monotonic())
            raise DatabaseFailed("database_error", "for longer than a lease")
        return complete(*args)

    monkeypatch.setattr(store, "complete", failing)
    job_id = client.ask().json()["id"]
    wait_for(lambda: failures and client.service.supervisors[0].job is None)
    found = store.get(job_id)
    assert found
    assert found.state is State.RUNNING, "until its lease has run out"
    wait_for(lambda: made_again(client.service, job_id))
    job = ended(client.service, job_id)
    assert (job.state, job.attempts) == (State.COMPLETED, 2)


def made_again(service: Service, job_id: str) -> bool:
    service.desk.recover(started=False)  # as housekeeping does
    job = service.store.get(job_id)
    return job is not None and job.state.is_final


def test_a_database_damaged_while_it_is_open(client: Client) -> None:
    """Every answer says so, and the server is not ready; the next start will set it aside."""
    store = client.service.store
    for number in range(40):
        job, _ = store.create(request_for(f"{number} " * 1000), 1e6, 1.0, lambda load: None, None)
        store.cancel(job.id, 2.0)
    pragma(client, "wal_checkpoint(TRUNCATE)")
    file = client.service.settings.data_dir / "jobs.sqlite3"
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff" * (file.stat().st_size - 4096))
    pragma(client, "shrink_memory")
    assert_refused(client.get(ID), "database_damaged")
    for _ in range(2):
        assert client.get("/ready").json()["reasons"] == ["database_damaged"]
        time.sleep(1.5)  # supervisors ask it again and again
    assert client.get("/live").status_code == 200
    assert "hv_ready 0.0" in client.get("/metrics").text
    assert_refused(client.ask(), "database_damaged")
