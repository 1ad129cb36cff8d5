"""Signatures of manifests: an engine is executable code, so only what this store's owner built is loaded.

HMAC-SHA256 (RFC 2104) under a key of 32 random bytes. The key is a file that only its owner can read; copied
to another machine, it makes engines built here loadable there.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from hyvideo_rt.errors import EngineError

KEY_BYTES = 32


def load_key(path: Path) -> bytes:
    """The key, made on first use. Raises EngineError for a file that others can read or that is no key."""
    if not path.exists():
        _make(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise EngineError(
            f"{path}: its mode is {mode:04o}, expected 0600: others could sign engines\n  chmod 600 {path}"
        )
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise EngineError(
            f"{path}: got {len(key)} bytes, expected a key of {KEY_BYTES}\n"
            f"  delete it and build the engines again, or copy it once more from where they were built"
        )
    return key


def sign(content: bytes, key: bytes) -> str:
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def is_signed(content: bytes, signature: str, key: bytes) -> bool:
    return hmac.compare_digest(sign(content, key).encode(), signature.encode())


def _make(path: Path) -> None:
    """Whole at once: of several processes that start together, one makes the key and all read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(partial, path)  # fails where another process was first
    except FileExistsError:
        pass
    finally:
        partial.unlink()
