"""What a server promises about every job it has accepted, checked on what clients saw and what it says.

An accepted job exists and ends once, for a reason that can be; its video is whole, and the same for the same
request; one key is one job; nothing is left on disk that belongs to no finished job.
"""

import collections
import hashlib
import io
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

FINAL = ("completed", "failed")
ATTEMPTS = 2  # after which a job whose worker was lost has failed


@dataclass(frozen=True)
class Ending:
    """What a record says that may never change again."""

    status: str
    code: str | None
    sha256: str | None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Ending":
        error = record["error"] or {}
        return cls(record["status"], error.get("code"), record["sha256"])


@dataclass
class Tale:
    """One job as its client knows it. ids: of every answer to a create under this key, one is right."""

    key: str
    body: dict[str, Any]
    ids: list[str] = field(default_factory=list)
    cancel_asked: bool = False
    deleted: bool = False
    vanished: bool = False  # answered 404 though nobody had deleted it
    lingered: bool = False  # not answered 404 though it was deleted
    went_on: bool = False  # not ended though it was cancelled
    endings: list[Ending] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.ids[0]

    def saw(self, record: Mapping[str, Any]) -> bool:
        """Whether it has ended; how is kept."""
        if record["status"] in FINAL:
            self.endings.append(Ending.of(record))
        return record["status"] in FINAL


@dataclass(frozen=True)
class Content:
    """A video as it was downloaded; frames are those that could be decoded."""

    size_bytes: int
    sha256: str
    frames: int

    @classmethod
    def of(cls, data: bytes) -> "Content":
        return cls(len(data), hashlib.sha256(data).hexdigest(), decoded_frames(data))


@dataclass(frozen=True)
class Leftovers:
    """Of a server that is idle: files of videos and pictures, files in `partial`, SQLite's verdict."""

    files: Sequence[str]
    partial: Sequence[str]
    integrity: str

    @classmethod
    def of(cls, data_dir: Path) -> "Leftovers":
        """Of a server that was stopped."""
        videos = data_dir / "videos"
        database = sqlite3.connect(data_dir / "jobs.sqlite3")
        try:
            verdict = str(database.execute("PRAGMA integrity_check").fetchone()[0])
        finally:
            database.close()
        files = sorted(path.name for path in videos.iterdir() if path.is_file())
        return cls(files, sorted(path.name for path in (videos / "partial").iterdir()), verdict)


def decoded_frames(data: bytes) -> int:
    try:
        with av.open(io.BytesIO(data), "r") as container:
            return sum(1 for _ in container.decode(video=0))
    except av.FFmpegError:
        return 0


def broken_promises(
    tales: Sequence[Tale],
    records: Mapping[str, Mapping[str, Any]],
    contents: Mapping[str, Content],
    endings: Mapping[str, int],
    left: Leftovers,
) -> dict[str, list[str]]:
    """What was broken, and by which jobs or files; empty if all was kept.

    records: all that the server has at the end; endings: how often its log says that each job ended.
    """
    found: dict[str, list[str]] = collections.defaultdict(list)
    for tale in tales:
        for promise in _broken_by(tale, records.get(tale.id)):
            found[promise].append(tale.id)
    for job_id, count in endings.items():
        if count > 1:
            found["ended more than once"].append(job_id)
    known = {tale.id for tale in tales}
    found["nobody was told of it"] += sorted(records.keys() - known)
    completed = {job_id for job_id, record in records.items() if record["status"] == "completed"}
    found["its video is not whole"] += [
        job_id for job_id in sorted(completed) if not _is_whole(records[job_id], contents.get(job_id))
    ]
    found["another video for the same request"] += _odd_ones(records[job_id] for job_id in sorted(completed))
    found["file without a completed job"] += [
        name for name in left.files if name.partition(".")[0] not in completed
    ]
    found["left in partial"] += left.partial
    found["integrity"] += [left.integrity] if left.integrity != "ok" else []
    return {promise: breakers for promise, breakers in found.items() if breakers}


def _broken_by(tale: Tale, record: Mapping[str, Any] | None) -> Iterable[str]:
    if len(set(tale.ids)) > 1:
        yield "one key made two jobs"
    if tale.vanished or (record is None and not tale.deleted):
        yield "accepted and gone"
    if tale.lingered or (record is not None and tale.deleted):
        yield "deleted and there"
    if tale.went_on:
        yield "cancelled and went on"
    if record is None:
        return
    if record["status"] not in FINAL:
        yield "never ended"
        return
    if len({*tale.endings, Ending.of(record)}) > 1:
        yield "its end changed"
    if record["status"] == "failed" and not _may_fail(tale, record):
        yield "failed for no reason"


def _may_fail(tale: Tale, record: Mapping[str, Any]) -> bool:
    code = record["error"]["code"]
    return (code == "cancelled" and tale.cancel_asked) or (
        code == "worker_lost" and record["attempts"] == ATTEMPTS
    )


def _is_whole(record: Mapping[str, Any], content: Content | None) -> bool:
    return content == Content(record["size_bytes"], record["sha256"], record["num_frames"])


def _odd_ones(completed: Iterable[Mapping[str, Any]]) -> list[str]:
    """Those whose hash is not that of the first one with their seed and steps."""
    first: dict[tuple[int, int], str] = {}
    return [
        record["id"]
        for record in completed
        if first.setdefault((record["seed"], record["steps"]), record["sha256"]) != record["sha256"]
    ]
