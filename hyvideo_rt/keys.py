"""API keys in `Authorization` headers: as Bearer from programs, as the password of Basic from browsers."""

import base64
import binascii
import hmac
from collections.abc import Sequence


def accepts(authorization: str, keys: Sequence[str], *, basic: bool) -> bool:
    """Whether the header carries one of the keys; with `basic`, as anybody's password too."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer":
        candidate = given.strip().encode()
    elif basic and scheme.lower() == "basic":
        candidate = _password(given.strip())
    else:
        return False
    matches = [hmac.compare_digest(candidate, key.encode()) for key in keys]  # all: time tells nothing
    return any(matches)


def _password(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
