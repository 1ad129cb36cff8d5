"""What is known about one built engine: for whom, from what, by what, where, how large and how exact."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from hyvideo_rt.engines.spec import EngineSpec
from hyvideo_rt.errors import EngineMismatch

FORMAT = 2


@dataclass(frozen=True)
class TensorInfo:
    name: str
    shape: tuple[int | str, ...]  # a name where the size may vary
    dtype: str


@dataclass(frozen=True)
class Manifest:
    """inputs are in the order in which an engine is called, weights last. source is the digest of our code
    that defines the graph, graph that of what it was exported to; libraries are versions that must be the
    same where it runs. parity says how exact the engine was found and where: on the "device", or only through
    its "onnx" graph. scratch_bytes is None where the backend does not say.
    """

    spec: EngineSpec
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    source: str
    graph: str
    libraries: dict[str, str]
    built_on: dict[str, str]
    build_s: float
    peak_bytes: int
    scratch_bytes: int | None
    parity: dict[str, Any]
    artefact: str  # the file beside the manifest
    size_bytes: int
    sha256: str

    def to_bytes(self) -> bytes:
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Manifest":
        """Of bytes whose signature is right, so that only their age is in doubt. Raises EngineMismatch."""
        found = json.loads(content)
        expected = {field.name for field in fields(cls)}
        if found.pop("format", None) != FORMAT or set(found) != expected:
            raise EngineMismatch(f"the manifest is not of format {FORMAT}: another version wrote it")
        found["spec"] = EngineSpec.from_json(found["spec"])
        for side in ("inputs", "outputs"):
            found[side] = tuple(TensorInfo(t["name"], tuple(t["shape"]), t["dtype"]) for t in found[side])
        return cls(**found)
