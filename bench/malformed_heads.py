"""Heads of requests that are wrong, or nearly: request lines, paths, queries, headers and ranges.

Each function draws the bytes of one whole request.
"""

import random

NOBODY = "video_" + "0" * 32
ROUTES = ("/v1/videos", "/v1/models", "/health", "/metrics", "/openapi.json", "/", "/live", "/v1/videos/sync")
ROUTES_OF_ONE = tuple(f"/v1/videos/{NOBODY}{end}" for end in ("", "/content", "/events", "/cancel"))
WITH_QUERIES = ("/v1/videos", f"/v1/videos/{NOBODY}/content", f"/v1/videos/{NOBODY}/events")
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
HOST = b"Host: 127.0.0.1\r\n"

LINES = b"""\
GET
GET %s
GET  %s HTTP/1.1
GET %s HTTP/1.1 HTTP/1.1
GET %s HTTP/0.9
GET %s HTTP/1.0
GET %s HTTP/1.2
GET %s HTTP/2.0
GET %s HTTP/
GET %s HTTP/-1.1
 GET %s HTTP/1.1
GET	%s	HTTP/1.1
GET http://example.com%s HTTP/1.1
GET //example.com%s HTTP/1.1
GET example.com:80 HTTP/1.1
CONNECT 127.0.0.1:22 HTTP/1.1
OPTIONS * HTTP/1.1
GET * HTTP/1.1
GET ? HTTP/1.1
GET # HTTP/1.1
GET v1/videos HTTP/1.1
GET %s#part HTTP/1.1
GET %s/../../../etc/passwd HTTP/1.1
PRI * HTTP/2.0""".split(b"\n")
TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
# %s is a few random bytes.
HEADERS = (
    rb"""
NoColon
Space : x
: no name
 folded: x
Name: x\r\n folded
Na\x00me: x
%s: x
X: %s
X: a\rb
X: a\nb: c
Host:
Host: [
Host: [::1
Host: a b
Host: evil.example
Host: 127.0.0.1:x
Host: %s
Origin:
Origin: null
Origin: http://[
Origin: http://evil.example
Origin: //
Origin: %s
Connection: upgrade
Connection: close, close
Connection: keep-alive, close
Connection: %s
Connection: Upgrade\r\nUpgrade: websocket
Connection: Upgrade\r\nUpgrade: h2c
Expect: 100-continue
Expect: 200-ok
Accept-Encoding: gzip;q=9,gzip;q=-1
Authorization: Bearer
Authorization: Basic /w==
Authorization: %s
Cookie: %s
Content-Type:
Content-Type: a/b/c
Content-Type: application/json; charset=\xff
Content-Type: %s
Idempotency-Key:
Idempotency-Key: \x00
Idempotency-Key: \xff\xfe
Idempotency-Key: %s
""".decode("latin-1")
    .strip("\n")
    .split("\n")
)
RANGES = """
bytes=N-5 bytes=5-N bytes=-N bytes=N- bytes=N-N bytesN bytes=0-0,1-1 lines=0-N bytes==0-1 bytes=5-2 bytes= - N
"""
NUMBERS = ("0", "1", "-1", "99999999", "9" * 17, "9" * 40, "", "a", "0x1", "+1", " 1", "1.5", "9", "500")
CONDITIONS = ("", 'If-Range: "x"\r\n', "If-None-Match: *\r\n", 'If-None-Match: "\r\n', "Range: bytes=1-2\r\n")
ODD_BITS = f"% %z %zz %00 %0a %0d%0a %c0%af %ff %2e%2e%2f .. %25 %u0041 / video_ {'0' * 32}"
QUERY_NAMES = "limit after order variant x limit%00 ="
QUERY_VALUES = f"0 -1 1e9 {'9' * 5000} %ff %00 %D9%A1 asc thumbnail {NOBODY} a&limit=2 % &"


def head(rng: random.Random, method: str = "GET", path: str = "") -> bytes:
    """The first two lines; of a request to anywhere if there is no path."""
    return f"{method} {path or any_path(rng)} HTTP/1.1\r\n".encode() + HOST


def any_path(rng: random.Random) -> str:
    return rng.choice(ROUTES + ROUTES_OF_ONE)


def request_lines(rng: random.Random) -> bytes:
    line = rng.choice(LINES).replace(b"%s", any_path(rng).encode())
    long = b"GET /v1/videos?" + b"a=b&" * rng.randrange(20000) + b" HTTP/1.1"
    odd = (long, TLS_HELLO + rng.randbytes(64), b"GET /" + rng.randbytes(20) + b" HTTP/1.1")
    chosen = line if rng.random() < 0.85 else rng.choice(odd)
    return chosen + rng.choice((b"\r\n", b"\n", b"\r")) + HOST + b"\r\n"


def odd_headers(rng: random.Random) -> bytes:
    """Without a Host at times."""
    first = head(rng)
    return (first if rng.random() < 0.7 else first.removesuffix(HOST)) + odd_fields(rng) + b"\r\n"


def odd_fields(rng: random.Random) -> bytes:
    """One to three of HEADERS."""
    lines = rng.choices(HEADERS, k=rng.randint(1, 3))
    text = "".join(line + "\r\n" for line in lines).encode("latin-1")
    for escape, byte in ((rb"\r", b"\r"), (rb"\n", b"\n"), (rb"\x00", b"\0"), (rb"\xff", b"\xff")):
        text = text.replace(escape, byte)
    return text.replace(b"%s", rng.randbytes(rng.randrange(1, 20)))


def huge_headers(rng: random.Random) -> bytes:
    size = rng.choice((1 << 13, 1 << 16, 1 << 18, 1 << 20))
    many = b"".join(b"X-%d: y\r\n" % i for i in range(size // 16))
    return head(rng) + rng.choice((b"X: " + b"y" * size + b"\r\n", b"y" * size + b": x\r\n", many)) + b"\r\n"


def percents(rng: random.Random) -> bytes:
    odd = "".join(rng.choices(ODD_BITS.split(), k=rng.randint(1, 5)))
    paths = (f"/v1/videos/{odd}", f"/v1/videos/{odd}/content", f"/v1/models/{odd}", f"/{odd}", f"//{odd}")
    return head(rng, rng.choice(("GET", "DELETE", "POST")), rng.choice(paths)) + b"\r\n"


def queries(rng: random.Random) -> bytes:
    pairs = (
        f"{rng.choice(QUERY_NAMES.split())}={rng.choice(QUERY_VALUES.split())}"
        for _ in range(rng.randint(1, 4))
    )
    return head(rng, "GET", f"{rng.choice(WITH_QUERIES)}?{'&'.join(pairs)}") + b"\r\n"


def methods(rng: random.Random) -> bytes:
    return head(rng, rng.choice(METHODS)) + rng.choice((b"\r\n", b"Content-Length: 2\r\n\r\n{}"))


def http_0_9(rng: random.Random) -> bytes:
    return f"GET {any_path(rng)}\r\n".encode() + rng.choice((b"", b"\r\n"))


def ranges(rng: random.Random, path: str) -> bytes:
    """Of a video that is there."""
    wanted = rng.choice((*RANGES.split(), "\x7f", "bytes=" + "0-," * 2000)).replace("N", rng.choice(NUMBERS))
    query = rng.choice(("", "", "?variant=thumbnail", "?variant=spritesheet", "?variant=x"))
    sound = head(rng, rng.choice(("GET", "GET", "HEAD", "POST")), path + query)
    return sound + f"Range: {wanted}\r\n{rng.choice(CONDITIONS)}\r\n".encode("latin-1")
