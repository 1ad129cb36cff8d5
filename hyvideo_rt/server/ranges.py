"""Files over HTTP, whole or one range as RFC 9110 has it, opened before the answer begins."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from hyvideo_rt.server.faults import error_response

CHUNK = 256 * 1024
# One range, bounded digits. Anything else, several ranges too, is ignored as section 14.2 allows: the answer
# is the whole file, and no header can make it more than that.
ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Unsatisfiable(Exception):
    """A range that begins behind the end of the file."""


@dataclass(frozen=True)
class Slice:
    """Bytes `start` up to, not including, `stop`."""

    start: int
    stop: int


def parse_range(header: str | None, size: int) -> Slice | None:
    """The part that is asked for, None for the whole. Raises Unsatisfiable."""
    found = ONE_RANGE.fullmatch(header.strip()) if header else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:  # the last so many bytes
        if int(last) == 0 or size == 0:
            raise Unsatisfiable
        return Slice(max(0, size - int(last)), size)
    start = int(first)
    if last and int(last) < start:
        return None  # not a range at all
    if start >= size:
        raise Unsatisfiable
    return Slice(start, min(int(last) + 1, size) if last else size)


def file_response(request: Request, path: Path, media_type: str, etag: str) -> Response:
    """Raises FileNotFoundError. A file deleted after this is still sent whole."""
    file = path.open("rb", buffering=0)
    size = os.fstat(file.fileno()).st_size
    quoted = f'"{etag}"'
    headers = {"ETag": quoted, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    try:
        if quoted in request.headers.get("if-none-match", "").split(", "):
            file.close()
            return Response(status_code=304, headers=headers)
        fresh = request.headers.get("if-range") in (None, quoted)
        part = parse_range(request.headers.get("range"), size) if fresh else None
    except Unsatisfiable:
        file.close()
        headers = {"Content-Range": f"bytes */{size}"}
        return error_response(416, f"the file has {size} bytes", "range_not_satisfiable", "range", headers)
    sent = part or Slice(0, size)
    headers |= {"Content-Length": str(sent.stop - sent.start)}
    if part:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    status = 206 if part else 200
    if request.method == "HEAD":
        sent = Slice(0, 0)
    if sent.stop - sent.start > CHUNK:
        return StreamingResponse(_read(file, sent), status, headers, media_type)
    with file:
        return Response(
            os.pread(file.fileno(), sent.stop - sent.start, sent.start), status, headers, media_type
        )


async def _read(file: BinaryIO, part: Slice) -> AsyncIterator[bytes]:
    with file:
        at = part.start
        while at < part.stop:
            chunk = await asyncio.to_thread(os.pread, file.fileno(), min(CHUNK, part.stop - at), at)
            if not chunk:
                return
            at += len(chunk)
            yield chunk
