"""A server in a forked process: it lives through a chapter until it is killed, or cleans up after that."""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kill_chapters import CHAPTERS, Chapter
from kill_checks import bring_to_an_end, of_the_damaged, of_the_database, violations
from kill_ledger import Client, keep_history, rows
from kill_switch import Point, Switch, install
from stubs import SQUARE, stub_settings

from hyvideo_rt.server.service import Service
from hyvideo_rt.server.settings import Settings

KILLED = -signal.SIGKILL
AT_MOST_S = 60


@dataclass(frozen=True)
class Run:
    """All cases have folders in `folder`; `film` is what workers write, `defect` changes every server."""

    folder: Path
    film: Path
    defect: Callable[[], None] | None = None

    def live(self, folder: Path, chapter: str, target: Point | None, order: str | None) -> int:
        """The exit status of a server whose clients do what the chapter says; `order` is for its workers."""
        settings = self._settings(folder, CHAPTERS[chapter], *([order] if order else []))

        def act() -> None:
            switch = Switch(target)
            self._begin(switch)
            service = Service(settings)
            CHAPTERS[chapter].live(Client(service, folder / "ledger"))
            service.close()
            (folder / "seen").write_text(json.dumps([vars(point) for point in switch.seen]))

        in_child(folder, lambda: self._prepare(folder, CHAPTERS[chapter]))
        return in_child(folder, act)

    def verify(self, folder: Path, chapter: str, target: Point | None) -> tuple[int, list[str]]:
        """The exit status of a server that comes after a kill, and what is wrong when it has ended."""
        settings = self._settings(folder, CHAPTERS[chapter])

        def act() -> None:
            self._begin(Switch(target))
            service = Service(settings)
            bring_to_an_end(service, folder / "ledger")
            found = [*violations(service, folder / "ledger")]
            service.close()
            found += of_the_database(settings.data_dir)
            if CHAPTERS[chapter].damaged:
                found += of_the_damaged(settings.data_dir)
            (folder / "found").write_text(json.dumps(found + living_workers(folder)))

        return in_child(folder, act), self.found(folder)

    def found(self, folder: Path) -> list[str]:
        path = folder / "found"
        return list(json.loads(path.read_text())) if path.exists() else []

    def words(self, folder: Path) -> str:
        """The last of what its servers have said."""
        return (folder / "log").read_text()[-600:]

    def forget(self, folder: Path) -> None:
        shutil.rmtree(folder)

    def _begin(self, switch: Switch) -> None:
        keep_history()
        if self.defect:
            self.defect()
        install(switch)

    def _settings(self, folder: Path, chapter: Chapter, *words: str) -> Settings:
        settings = stub_settings(folder, f"film={self.film}", *words, limits=chapter.limits)
        return replace(settings, warm=(SQUARE,)) if chapter.warm else settings

    def _prepare(self, folder: Path, chapter: Chapter) -> None:
        keep_history()
        chapter.prepare(folder / "data")
        if not chapter.damaged and (folder / "data" / "jobs.sqlite3").exists():
            found = rows(folder / "data" / "jobs.sqlite3", "SELECT id FROM jobs")
            made = [{"made": job_id, "prompt": "prepared", "key": None} for (job_id,) in found]
            (folder / "ledger").write_text("".join(json.dumps(note) + "\n" for note in made))


def survey(run: Run, chapter: str) -> tuple[list[Point], list[str]]:
    """The points of the server and of its first worker in a chapter that nobody disturbs."""
    folder = run.folder / f"survey of {chapter}"
    status = run.live(folder, chapter, None, None)
    assert status == 0, run.words(folder)
    seen = [Point(**point) for point in json.loads((folder / "seen").read_text())]
    worker = (folder / "stub" / "points").read_text().splitlines()
    run.forget(folder)
    return seen, list(dict.fromkeys(worker))


def in_child(folder: Path, act: Callable[[], None]) -> int:
    """Its exit status, negative for a signal. Forked: what takes seconds to import is there already."""
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(AT_MOST_S)
            _write_to(folder / "log")
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _write_to(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def living_workers(folder: Path) -> list[str]:
    """Workers end with their server, killed or not; they have a moment for that."""
    pids = [path.name.removeprefix("start-") for path in (folder / "stub").glob("start-*")]
    deadline = time.monotonic() + 5
    while alive := [pid for pid in pids if _lives(pid)]:
        if time.monotonic() > deadline:
            return [f"{len(alive)} workers without a server"]
        time.sleep(0.01)
    return []


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
