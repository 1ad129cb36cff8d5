"""The digest of the code that an engine was made from: with other code, the engine is another one."""

import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "hyvideo_rt"
GRAPH = ("kernels/*.py", "models/dit.py", "models/vae.py", "models/linear.py", "export/programs.py")


@cache
def source_digest(*more: str) -> str:
    """SHA-256 over the files that define the graphs, and the backend's own: `engines/inductor.py` for one."""
    found = hashlib.sha256()
    for pattern in (*GRAPH, *more):
        files = sorted(PACKAGE.glob(pattern))
        assert files, pattern
        for file in files:
            found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()
