"""Requests as no client should send them: each kind is a function from a random generator to bytes.

`KINDS` names them all. Some are valid by chance, and that is right, too.
"""

import random
from collections.abc import Callable, Sequence

from hyvideo_rt.bench.malformed_bodies import any_json, form, invalid_utf8, mutated_json

NOBODY = "video_" + "0" * 32
ROUTES: tuple[str, ...] = (
    "/v1/videos",
    "/v1/models",
    "/health",
    "/metrics",
    "/openapi.json",
    "/",
    "/live",
    "/v1/videos/sync",
)
ROUTES += tuple(f"/v1/videos/{NOBODY}{end}" for end in ("", "/content", "/events", "/cancel"))
METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "FOO",
    "\x00",
)
JSON, HOST = b"Content-Type: application/json\r\n", b"Host: 127.0.0.1\r\n"
LEAVING = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def head(rng: random.Random, method: str = "GET", path: str = "") -> bytes:
    return f"{method} {path or rng.choice(ROUTES)} HTTP/1.1\r\n".encode() + HOST


def create(body: bytes, headers: bytes = JSON) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST /v1/videos HTTP/1.1\r\n" + HOST + headers + length + b"\r\n" + body


def random_bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 2048)) + rng.choice((b"", b"\r\n\r\n"))


def request_line(rng: random.Random) -> bytes:
    path = rng.choice(ROUTES).encode()
    lines = (
        b"GET",
        b"GET " + path,
        b"GET  " + path + b" HTTP/1.1",
        b"GET " + path + b" HTTP/1.1 HTTP/1.1",
        b"GET " + path + b" HTTP/" + rng.choice((b"0.9", b"1.0", b"1.2", b"2.0", b"9.9", b"", b"1", b"-1.1")),
        b" GET " + path + b" HTTP/1.1",
        b"GET\t" + path + b"\tHTTP/1.1",
        b"GET http://example.com" + path + b" HTTP/1.1",
        b"GET //example.com" + path + b" HTTP/1.1",
        b"GET example.com:80 HTTP/1.1",
        b"CONNECT 127.0.0.1:22 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET ? HTTP/1.1",
        b"GET # HTTP/1.1",
        b"GET v1/videos HTTP/1.1",
        b"GET " + path + b"#part HTTP/1.1",
        b"GET " + path + b"/../../../etc/passwd HTTP/1.1",
        b"GET " + path + b"?" + b"a=b&" * rng.randrange(20000) + b" HTTP/1.1",
        b"GET /" + rng.randbytes(20) + b" HTTP/1.1",
        b"PRI * HTTP/2.0\r\n\r\nSM",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(64),  # a TLS hello
    )
    return rng.choice(lines) + rng.choice((b"\r\n", b"\n", b"\r")) + HOST + b"\r\n"


def bad_headers(rng: random.Random) -> bytes:
    word = rng.randbytes(rng.randrange(1, 20))
    lines = (
        b"NoColon\r\n",
        b"Space : x\r\n",
        b": no name\r\n",
        b" folded: x\r\n",
        b"Name: x\r\n folded\r\n",
        b"Na\x00me: x\r\n",
        word + b": x\r\n",
        b"X: " + word + b"\r\n",
        b"X: a\rb\r\n",
        b"X: a\nb: c\r\n",
        b"Host: " + rng.choice((b"", b"[", b"[::1", b"a b", b"evil.example", b"127.0.0.1:x", word)) + b"\r\n",
        b"Origin: " + rng.choice((b"", b"null", b"http://[", b"http://evil", b"//", word)) + b"\r\n",
        b"Connection: "
        + rng.choice((b"upgrade", b"close, close", b"", b"keep-alive, close", word))
        + b"\r\n",
        b"Connection: Upgrade\r\nUpgrade: " + rng.choice((b"websocket", b"h2c", b"")) + b"\r\n",
        b"Expect: " + rng.choice((b"100-continue", b"200-ok", b"")) + b"\r\n",
        b"Accept-Encoding: " + b"gzip;q=9," * 50 + b"\r\n",
        b"Authorization: " + rng.choice((b"Bearer", b"Basic !!!", b"Basic /w==", b"", word)) + b"\r\n",
        b"Cookie: " + word + b"\r\n",
        b"Content-Type: " + rng.choice((b"", b"a/b/c", b"application/json; charset=\xff", word)) + b"\r\n",
        b"Idempotency-Key: " + rng.choice((b"", b"x" * 300, b"\x00", b"\xff\xfe", word)) + b"\r\n",
    )
    first = f"GET {rng.choice(ROUTES)} HTTP/1.1\r\n".encode()
    chosen = b"".join(rng.choices(lines, k=rng.randint(1, 3)))
    if rng.random() < 0.3:
        return create(mutated_json(rng), JSON + chosen)
    return first + (HOST if rng.random() < 0.7 else b"") + chosen + b"\r\n"


def content_length(rng: random.Random) -> bytes:
    body = any_json()
    lengths = (
        b"-1",
        b"+5",
        b"0x10",
        b"5, 5",
        b"5, 6",
        b"",
        b"abc",
        b"1e3",
        b"9" * 30,
        b" 7 ",
        b"\xb2",
        b"5\x00",
    )
    near = str(len(body) + rng.choice((-5, -1, 1, 5, 1 << 40))).encode()
    value = rng.choice((*lengths, near, near, near))
    more = rng.choice((b"", b"", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"))
    fields = JSON + b"Content-Length: " + value + b"\r\n" + more
    return head(rng, "POST", rng.choice(("/v1/videos", ""))) + fields + b"\r\n" + body


def chunked(rng: random.Random) -> bytes:
    body = any_json()
    coding = rng.choice(
        (b"chunked", b"chunked", b"gzip, chunked", b"chunked, gzip", b"xchunked", b"identity")
    )
    sizes = (
        b"%x" % len(body),
        b"-1",
        b"g",
        b"",
        b"f" * 20,
        b"0x5",
        b"5;ext=" + b"x" * 999,
        b" 5",
        b"5 ",
        b"5\x00",
    )
    ends = (
        b"\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        b"\r\n",
        b"",
        b"\r\n0\r\nTrailer: x\r\n\r\n",
        b"\r\n0\r\nno colon\r\n\r\n",
    )
    chunk = rng.choice(sizes) + rng.choice((b"\r\n", b"\n", b"")) + body + rng.choice(ends)
    fields = JSON + b"Transfer-Encoding: " + coding + b"\r\n"
    path = rng.choice(("/v1/videos", ""))
    return head(rng, rng.choice(METHODS[2:5]), path) + fields + b"\r\n" + chunk * rng.randint(1, 3)


def huge_headers(rng: random.Random) -> bytes:
    size = rng.choice((1 << 13, 1 << 16, 1 << 18, 1 << 20))
    many = b"".join(b"X-%d: y\r\n" % i for i in range(size // 16))
    return head(rng) + rng.choice((b"X: " + b"y" * size + b"\r\n", b"y" * size + b": x\r\n", many)) + b"\r\n"


def nuls(rng: random.Random) -> bytes:
    sound = bytearray(rng.choice((create(any_json()), head(rng) + b"X: y\r\n\r\n")))
    for _ in range(rng.randint(1, 4)):
        sound[rng.randrange(len(sound))] = 0
    return bytes(sound)


def truncated(rng: random.Random) -> bytes:
    sound = rng.choice((create(any_json()), head(rng) + b"Range: bytes=0-1\r\n\r\n", create(*form(rng))))
    return sound[: rng.randrange(1, len(sound))]


def not_utf8(rng: random.Random) -> bytes:
    return rng.choice((create(invalid_utf8(rng)), create(*form(rng, rng.randbytes(30)))))


def percents(rng: random.Random) -> bytes:
    bits = (
        "%",
        "%z",
        "%zz",
        "%00",
        "%0a",
        "%0d%0a",
        "%c0%af",
        "%ff",
        "%2e%2e%2f",
        "..",
        "%25",
        "%u0041",
        "/",
    )
    odd = "".join(rng.choices((*bits, "video_", "0" * 32), k=rng.randint(1, 5)))
    paths = (f"/v1/videos/{odd}", f"/v1/videos/{odd}/content", f"/v1/models/{odd}", f"/{odd}", f"//{odd}")
    return head(rng, rng.choice(("GET", "DELETE", "POST")), rng.choice(paths)) + b"\r\n"


def queries(rng: random.Random) -> bytes:
    names = ("limit", "after", "order", "variant", "x", "limit%00", "")
    values = (
        "",
        "0",
        "-1",
        "1e9",
        "9" * 5000,
        "%ff",
        "%00",
        "%D9%A1",
        "asc",
        "thumbnail",
        NOBODY,
        "a&limit=2",
        "%",
    )
    query = "&".join(f"{rng.choice(names)}={rng.choice(values)}" for _ in range(rng.randint(1, 4)))
    return head(rng, "GET", f"{rng.choice(ROUTES[:1] + ROUTES[-3:])}?{query}") + b"\r\n"


def methods(rng: random.Random) -> bytes:
    return head(rng, rng.choice(METHODS)) + rng.choice((b"\r\n", b"Content-Length: 2\r\n\r\n{}"))


def mutated(rng: random.Random) -> bytes:
    return create(mutated_json(rng))


def mutated_and_waited_for(rng: random.Random) -> bytes:
    return create(mutated_json(rng)).replace(b"/v1/videos", b"/v1/videos/sync", 1)


def forms(rng: random.Random) -> bytes:
    return create(*form(rng))


def doubled_headers(rng: random.Random) -> bytes:
    lines: tuple[bytes, ...] = (
        JSON,
        b"Content-Type: text/plain\r\n",
        HOST,
        b"Host: evil.example\r\n",
        b"Idempotency-Key: a\r\n",
    )
    lines += (b"Idempotency-Key: b\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n")
    return create(any_json(), JSON + b"".join(rng.choices(lines, k=rng.randint(1, 6))))


def http_0_9(rng: random.Random) -> bytes:
    return f"GET {rng.choice(ROUTES)}\r\n".encode()


def ranges(rng: random.Random, path: str) -> bytes:
    """Of a video that is there."""
    number = rng.choice(("0", "1", "-1", "99999999", "9" * 17, "9" * 40, "", "a", "0x1", "+1", " 1", "1.5"))
    specs: tuple[str, ...] = (
        f"bytes={number}-{rng.randrange(9999)}",
        f"bytes=-{number}",
        f"bytes={number}-",
        f"bytes{number}",
    )
    specs += (
        "bytes=0-0,1-1",
        "bytes=" + "0-," * 2000,
        f"lines=0-{number}",
        "bytes==0-1",
        "bytes=5-2",
        "",
        "\x7f",
    )
    lines = [f"Range: {rng.choice(specs)}"]
    lines += rng.choice(
        ([], ['If-Range: "x"'], ["If-None-Match: *"], ['If-None-Match: "'], ["Range: bytes=1-2"])
    )
    query = rng.choice(("", "", "?variant=thumbnail", "?variant=spritesheet", "?variant=x"))
    sound = head(rng, rng.choice(("GET", "GET", "HEAD", "POST")), path + query)
    return sound + "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


KINDS: Sequence[Callable[[random.Random], bytes]] = (
    random_bytes,
    request_line,
    bad_headers,
    content_length,
    chunked,
    huge_headers,
    nuls,
    truncated,
    not_utf8,
    percents,
    queries,
    methods,
    mutated,
    mutated_and_waited_for,
    forms,
    doubled_headers,
    http_0_9,
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
