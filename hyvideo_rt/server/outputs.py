"""Finished videos on disk: written aside by a worker, moved into place whole, swept when nobody owns them.

ROOT/<job id>.mp4               published: whole, on disk, and named in a completed row
ROOT/<job id>.thumbnail.webp,
     <job id>.spritesheet.jpg   pictures made from it
ROOT/partial/                   what workers write to; emptied at start
"""

import errno
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from hyvideo_rt.errors import OutputError
from hyvideo_rt.server.jobs import Output, is_job_id

log = logging.getLogger(__name__)
ENDINGS = {
    "video": ".mp4",
    "thumbnail": ".thumbnail.webp",
    "spritesheet": ".spritesheet.jpg",
}  # all a job has
CHUNK = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT)  # an OSError that more room would mend


class Outputs:
    """One folder that only we write to. Names come from job ids alone, never from a client."""

    def __init__(self, root: Path) -> None:
        """Raises OutputError for a folder that cannot be written."""
        self.root, self._partial = root, root / "partial"
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.rmtree(self._partial, ignore_errors=True)  # of workers that are gone
            self._partial.mkdir(mode=0o700)
        except OSError as error:
            raise OutputError(
                f"got {error.strerror!r} for the folder {root}; expected one that this user may write\n"
                f"  make it and all in it writable, or start the server with another --data-dir"
            ) from error

    def new_partial(self, job_id: str, suffix: str = ".mp4") -> Path:
        """A name nobody else has, on the file system of the final one."""
        return self._partial / f"{_checked(job_id)}.{secrets.token_hex(4)}{suffix}"

    def video(self, job_id: str) -> Path:
        return self.file(job_id, "video")

    def file(self, job_id: str, variant: str) -> Path:
        return self.root / (_checked(job_id) + ENDINGS[variant])

    def publish(self, partial: Path, final: Path, seconds: Mapping[str, float]) -> Output:
        """After this returns, `final` is there whole, even after a power cut."""
        digest, size = _hash(partial)
        _sync(partial)
        partial.replace(final)
        _sync(final.parent)
        return Output(size, digest, seconds)

    def discard(self, path: Path) -> None:
        """As far as the disk lets us: if it has become read-only, the next sweep or start finds it."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.error("a file of no use could not be deleted: %s", error)

    def delete(self, job_id: str) -> None:
        for variant in ENDINGS:
            self.file(job_id, variant).unlink(missing_ok=True)

    def owners(self) -> Iterator[str]:
        """The job ids that files carry: those that `delete` takes, no others."""
        names = (path.name.partition(".") for path in self.root.iterdir() if path.is_file())
        ids = {name for name, dot, rest in names if dot + rest in ENDINGS.values() and is_job_id(name)}
        return iter(sorted(ids))

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free


def _checked(job_id: str) -> str:
    assert is_job_id(job_id), f"not a job id: {job_id!r}"
    return job_id


def _hash(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
