"""What the server and its worker say to each other: one JSON object a line, each of one kind. No pickle.

The server sends Generate and Cancel on the worker's standard input; its end is the order to leave. The worker
sends the rest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEFT_ALONE, BROKEN, CANNOT_LOAD = 0, 70, 78  # a worker's exit statuses


@dataclass(frozen=True)
class Generate:
    """Make this video, `jobs.VideoRequest` as JSON, and write it to `path`."""

    id: str
    request: Mapping[str, Any]
    path: str


@dataclass(frozen=True)
class Cancel:
    id: str


@dataclass(frozen=True)
class Ready:
    """The networks are loaded; `capabilities` is `capabilities.Capabilities` as JSON."""

    capabilities: Mapping[str, Any]


@dataclass(frozen=True)
class Heartbeat:
    """The process lives, whatever it is doing."""


@dataclass(frozen=True)
class Progress:
    """`done` of `total` steps or tiles of a stage: load, encode, denoise, decode or write."""

    id: str
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Done:
    """The file is written. seconds: of each stage; peak_bytes: of the device's memory, 0 on a CPU."""

    id: str
    seconds: Mapping[str, float]
    peak_bytes: int


@dataclass(frozen=True)
class Failed:
    """No video: code and message are those of `jobs.Fault`. After some codes the worker leaves."""

    id: str
    code: str
    message: str


Message = Generate | Cancel | Ready | Heartbeat | Progress | Done | Failed
KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind for kind in (Generate, Cancel, Ready, Heartbeat, Progress, Done, Failed)
}


class Garbled(Exception):
    """A line that is no message."""


def encode(message: Message) -> bytes:
    return json.dumps({"kind": type(message).__name__.lower(), **vars(message)}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Raises Garbled for what is not exactly one of the messages."""
    try:
        content = json.loads(line)
        return KINDS[content.pop("kind")](**content)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise Garbled(f"{type(error).__name__} in a line of {len(line)} bytes") from error
