"""Requests as no client should send them: each kind is a function from a random generator to bytes.

`KINDS` has them all. Some are valid by chance, and that is right, too.
"""

import random
from collections.abc import Callable, Sequence

from hyvideo_rt.bench.malformed_bodies import any_json, form, invalid_utf8, mutated_json
from hyvideo_rt.bench.malformed_heads import (
    HOST,
    http_0_9,
    huge_headers,
    methods,
    odd_fields,
    odd_headers,
    percents,
    queries,
    ranges,
    request_lines,
)

JSON = b"Content-Type: application/json\r\n"
LEAVING = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
LENGTHS = (b"-1", b"+5", b"0x10", b"5, 5", b"5, 6", b"", b"abc", b"1e3", b"9" * 30, b" 7 ", b"\xb2", b"5\x00")
OFF_BY = (-5, -1, 1, 5, 1 << 40)
CODINGS = (b"chunked", b"chunked", b"gzip, chunked", b"chunked, gzip", b"xchunked", b"identity")
CHUNK_SIZES = (b"-1", b"g", b"", b"f" * 20, b"0x5", b"5;ext=" + b"x" * 999, b" 5", b"5 ", b"5\x00")
CHUNK_ENDS = (
    b"\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"\r\n",
    b"",
    b"\r\n0\r\nX: y\r\n\r\n",
    b"\r\n0\r\nno colon\r\n\r\n",
)
DOUBLES = (JSON, HOST, b"Content-Type: text/plain\r\n", b"Host: evil.example\r\n", b"Idempotency-Key: a\r\n")
CLASHES = (b"Idempotency-Key: b\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n")


def post(path: bytes, fields: bytes, body: bytes) -> bytes:
    """With whatever fields say about the body's length."""
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


def create(body: bytes, fields: bytes = JSON, path: bytes = b"/v1/videos") -> bytes:
    return post(path, fields + b"Content-Length: %d\r\n" % len(body), body)


def random_bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 2048)) + rng.choice((b"", b"\r\n\r\n"))


def lengths(rng: random.Random) -> bytes:
    """A Content-Length that is none, or not that of the body."""
    body = any_json()
    value = rng.choice(LENGTHS) if rng.random() < 0.7 else b"%d" % (len(body) + rng.choice(OFF_BY))
    more = rng.choice((b"", b"", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"))
    return post(_path(rng), JSON + b"Content-Length: " + value + b"\r\n" + more, body)


def chunked(rng: random.Random) -> bytes:
    body = any_json()
    size = rng.choice((*CHUNK_SIZES, b"%x" % len(body), b"%X" % len(body)))
    chunk = size + rng.choice((b"\r\n", b"\r\n", b"\n", b"")) + body + rng.choice(CHUNK_ENDS)
    fields = JSON + b"Transfer-Encoding: " + rng.choice(CODINGS) + b"\r\n"
    return post(_path(rng), fields, chunk * rng.randint(1, 3))


def nuls(rng: random.Random) -> bytes:
    sound = bytearray(rng.choice((create(any_json()), LEAVING)))
    for _ in range(rng.randint(1, 4)):
        sound[rng.randrange(len(sound))] = 0
    return bytes(sound)


def truncated(rng: random.Random) -> bytes:
    sound = rng.choice((create(any_json()), LEAVING, create(*form(rng))))
    return sound[: rng.randrange(1, len(sound))]


def not_utf8(rng: random.Random) -> bytes:
    return rng.choice((create(invalid_utf8(rng)), create(*form(rng, rng.randbytes(30)))))


def mutated(rng: random.Random) -> bytes:
    return create(mutated_json(rng))


def odd_creates(rng: random.Random) -> bytes:
    """Nothing wrong but headers."""
    return create(any_json(), JSON + odd_fields(rng))


def waited_for(rng: random.Random) -> bytes:
    return create(mutated_json(rng), path=b"/v1/videos/sync")


def forms(rng: random.Random) -> bytes:
    return create(*form(rng))


def doubled_headers(rng: random.Random) -> bytes:
    return create(any_json(), JSON + b"".join(rng.choices(DOUBLES + CLASHES, k=rng.randint(1, 6))))


KINDS: Sequence[Callable[[random.Random], bytes]] = (
    random_bytes,
    request_lines,
    odd_headers,
    huge_headers,
    percents,
    queries,
    methods,
    http_0_9,
    lengths,
    chunked,
    nuls,
    truncated,
    not_utf8,
    mutated,
    odd_creates,
    waited_for,
    forms,
    doubled_headers,
)


def pipelined(rng: random.Random) -> bytes:
    """Several of all kinds in one connection, and a sound one that ends it."""
    return b"".join(rng.choice(KINDS)(rng) for _ in range(rng.randint(2, 5))) + LEAVING


def draw(rng: random.Random, path: str) -> tuple[str, bytes]:
    """One of some kind, and the kind; `path` is that of a video's content."""
    n = rng.randrange(len(KINDS) + 2)
    if n < len(KINDS):
        return KINDS[n].__name__, KINDS[n](rng)
    return ("pipelined", pipelined(rng)) if n == len(KINDS) else ("ranges", ranges(rng, path))


def _path(rng: random.Random) -> bytes:
    """Of a route that reads its body, or of one that does not."""
    return rng.choice((b"/v1/videos", b"/v1/videos/sync", b"/v1/models", b"/nowhere"))
