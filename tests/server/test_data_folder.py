"""A data folder that cannot be used is an error that says what to do, before a worker is started."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from stubs import stub_settings, traces

from hyvideo_rt.errors import HyVideoError
from hyvideo_rt.server.service import Service, alone_on


def start(folder: Path) -> None:
    settings = stub_settings(folder)
    with alone_on(settings):
        Service(settings).close()


def hold(database: Path) -> None:
    HELD.append(sqlite3.connect(database, isolation_level=None))
    HELD[-1].execute("BEGIN EXCLUSIVE")


HELD: list[sqlite3.Connection] = []
OBSTACLES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a folder as lock": ("lock", Path.mkdir, "Is a directory"),
    "a folder as database": ("jobs.sqlite3", Path.mkdir, "unable to open database file"),
    "a held database": ("jobs.sqlite3", hold, "database is locked"),
    "a file where videos belong": ("videos", Path.touch, "File exists"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_is_in_the_way(tmp_path: Path, name: str) -> None:
    where, put, words = OBSTACLES[name]
    (tmp_path / "data").mkdir()
    put(tmp_path / "data" / where)
    with pytest.raises(HyVideoError, match=rf"got '{words}'.*; expected .*\n  .*--data-dir"):
        start(tmp_path)
    assert traces(tmp_path, "start") == []
    while HELD:
        HELD.pop().close()


@pytest.mark.parametrize(
    "call", ["hyvideo_rt.server.service.os.open", "hyvideo_rt.server.outputs.Path.mkdir"]
)
def test_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    settings = stub_settings(tmp_path)
    monkeypatch.setattr(call, read_only)
    with (
        pytest.raises(HyVideoError, match="got 'Read-only file system' for the .*folder"),
        alone_on(settings),
    ):
        Service(settings).close()
