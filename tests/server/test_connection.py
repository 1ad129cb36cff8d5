"""Clients that never finish what they have begun to say."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from stubs import stub_service, wait_for, wait_warm

from hyvideo_rt.bench.server_process import free_port
from hyvideo_rt.server import connection as module
from hyvideo_rt.server.app import make_app
from hyvideo_rt.server.connection import Connection

LIVE = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CREATE = POST + b"Content-Length: 30\r\n\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with stub_service(tmp_path_factory.mktemp("connection"), body_s=0.5) as service:
        wait_warm(service)
        config = uvicorn.Config(make_app(service), port=free_port(), log_config=None, http=Connection)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        wait_for(lambda: server.started)
        yield config.port
        server.should_exit = True
        thread.join()


@pytest.fixture
def connection(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setattr(module, "HEAD_S", 0.5)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


def heard(connection: socket.socket, until: bytes) -> bytes:
    """The answer up to these words."""
    answer = b""
    while until not in answer:
        more = connection.recv(65536)
        assert more, answer
        answer += more
    return answer


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(65536) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("said", [b"", b"G", LIVE[:-2]], ids=["nothing", "a byte", "all but the end"])
def test_headers_that_never_end(connection: socket.socket, said: bytes) -> None:
    connection.sendall(said)
    assert is_closed(connection)


def test_a_second_request_that_never_ends(connection: socket.socket) -> None:
    for _ in range(2):
        connection.sendall(LIVE)
        assert b"200 OK" in heard(connection, b"alive")
        time.sleep(1)  # an idle connection may stay
    connection.sendall(LIVE[:20])
    assert is_closed(connection)


def test_a_byte_now_and_then_is_not_enough(connection: socket.socket) -> None:
    def trickle() -> None:
        for _ in range(100):
            connection.sendall(b"G")
            time.sleep(0.1)

    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        trickle()


def test_an_answer_may_take_its_time(connection: socket.socket) -> None:
    body = b'{"prompt": "steps 10 0.1"}'
    head = POST.replace(b"/v1/videos", b"/v1/videos/sync")
    connection.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert b"200 OK" in heard(connection, b"\r\n\r\n")


def test_a_body_that_never_ends_is_told_so(connection: socket.socket) -> None:
    connection.sendall(CREATE + b'{"prompt":')
    assert heard(connection, b'"code":"body_too_slow"}}').startswith(b"HTTP/1.1 408")
    assert is_closed(connection)
