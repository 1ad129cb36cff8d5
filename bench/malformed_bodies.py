"""Bodies of creates that are wrong, or nearly: JSON and forms mutated from a valid one."""

import random
from collections.abc import Iterable

FIELDS = {
    "prompt": '"a red circle moves right"',
    "model": '"tiny"',
    "size": '"64x64"',
    "steps": "2",
    "seed": "1",
    "guidance_scale": "6.0",
}
OTHER_FIELDS = ("seconds", "num_frames", "preset", "true_cfg_scale", "flow_shift", "negative_prompt", "n", "")
ODD_FIELDS = ("input_reference", "\\ud800", "\\u0000", "__proto__", "prompt", "steps", "x" * 5000)
NAMES = (*FIELDS, *OTHER_FIELDS, *ODD_FIELDS)
ODD_VALUES = r"""
null true [] {} 0 -1 1e400 1e-400 NaN -Infinity 1.5 2.0 -0.0 0.0 101 1001 'x' [{} "1" "" "1e2" "64x0" "1x1"
"\ud800" "\u0000" "64x64x1\ud800" "\ud800x1x1" "\r\nX:y" "<script>" "../../etc/passwd"
"99999x99999" "tiny-square" "64x64x17" "٦٤x64"
"""
VALUES = (*ODD_VALUES.split(), "9" * 400, "9" * 5000, "[" * 99999, '"' + "x" * 5000 + '"')


def any_json() -> bytes:
    return _joined(FIELDS.items())


def mutated_json(rng: random.Random) -> bytes:
    """With some values or fields that it should not have, or with some of its bytes changed."""
    if rng.random() < 0.4:
        return _with_other_bytes(any_json(), rng)
    fields = [(name, value) for name, value in FIELDS.items() if rng.random() < 0.9]
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(NAMES)
        fields = [field for field in fields if field[0] != name or rng.random() < 0.2]
        fields.insert(rng.randint(0, len(fields)), (name, rng.choice(VALUES)))
    return _joined(fields)


def invalid_utf8(rng: random.Random) -> bytes:
    wrong = rng.choice(
        (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\xef\xbb\xbf")
    )
    sound = any_json()
    at = rng.choice((0, 2, 15, len(sound)))
    return sound[:at] + wrong + sound[at:]


def form(rng: random.Random, value: bytes = b"a red circle") -> tuple[bytes, bytes]:
    """The body and its Content-Type's line: multipart or urlencoded."""
    if rng.random() < 0.3:
        bodies = (b"prompt=" + value, b"prompt=%", b"=&=&=", b"prompt=a&prompt=b", b"&" * 9999, b"steps=%ff")
        return rng.choice(bodies), b"Content-Type: application/x-www-form-urlencoded\r\n"
    parts = [_part(rng, value) for _ in range(rng.choice((0, 1, 1, 2, 3, 70)))]
    mark = rng.choice((b"b", b"b", b"b", b"c", b"", b"b" * 300))
    ends = rng.choice((b"--b--\r\n", b"--b--\r\n", b"--b", b"", b"--b----b--\r\n"))
    line = rng.choice((b'; boundary="' + mark + b'"', b"; boundary=" + mark, b"; boundary=" + mark, b""))
    return b"".join(parts) + ends, b"Content-Type: multipart/form-data" + line + b"\r\n"


def _part(rng: random.Random, value: bytes) -> bytes:
    names = (b"prompt", b"steps", b"seed", b"input_reference", b"\xff", b"", b"x\x00", b"prompt\\")
    name = rng.choice((b'; name="' + rng.choice(names) + b'"', b"; name=" + rng.choice(names), b""))
    file = rng.choice((b"", b"", b'; filename="a.png"', b"; filename*=utf-8''%ff"))
    more = rng.choice((b"", b"", b"Content-Type: text/plain; charset=\xff\r\n", b"no colon\r\n", b": \r\n"))
    more += rng.choice(
        (b"", b"Content-Type: text/plain; charset=klingon\r\n", b"Content-Transfer-Encoding: x\r\n")
    )
    return b"--b\r\nContent-Disposition: form-data" + name + file + b"\r\n" + more + b"\r\n" + value + b"\r\n"


def _joined(fields: Iterable[tuple[str, str]]) -> bytes:
    """Names and values as JSON spells them."""
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in fields) + "}").encode()


def _with_other_bytes(sound: bytes, rng: random.Random) -> bytes:
    """One to four changes: a byte is another, is gone, is there twice, or the rest is."""
    data = bytearray(sound)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if data else 0
        change = rng.randrange(4)
        if change == 0:
            data[at : at + 1] = rng.randbytes(1)
        elif change == 1:
            del data[at : at + rng.randint(1, 4)]
        elif change == 2:
            data[at:at] = data[at : at + rng.randint(1, 8)]
        else:
            data[at:at] = rng.choice((b'"', b"{", b"}", b"[", b",", b":", b"\\", b"\\u", b"0", b"-", b"\x00"))
    return bytes(data)
