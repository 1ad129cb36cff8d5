"""What an engine is built for. Two engines with equal specs are interchangeable; nothing else is."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from hyvideo_rt.errors import InvalidRequest

Component = Literal["double_block", "single_block", "vae_decoder_tile"]
BackendName = Literal["inductor", "openvino", "tensorrt", "tensorrt_rtx"]
Precision = Literal["fp32", "bf16", "fp16", "fp8"]

MAX_TEXT = 256  # tokens of the prompt that a block is built for


@dataclass(frozen=True)
class EngineSpec:
    """The key of an engine. It has no resolution: blocks know only token counts, the VAE only tiles.

    shape is (image tokens, longest text) of a block and (T, H, W) of a tile of latents; model the digest of
    the config that defines the network; target what it runs on: a compute capability or one CPU level; wide
    the layers that stay in bf16 in an fp8 block, by name, and "attention"; attention who computes it, by
    name, when a block calls it (inductor), "" if it is compiled with the rest.
    """

    component: Component
    model: str
    shape: tuple[int, ...]
    precision: Precision
    backend: BackendName
    target: str
    wide: tuple[str, ...] = ()
    attention: str = ""

    def __post_init__(self) -> None:
        _check("component", self.component, get_args(Component))
        _check("backend", self.backend, get_args(BackendName))
        _check("precision", self.precision, get_args(Precision))

    @property
    def digest(self) -> str:
        return digest(asdict(self))

    @property
    def name(self) -> str:
        """For people, and the folder's name: `double_block-67320x256-bf16-inductor-sm90-1f3a5c7e`."""
        shape = "x".join(map(str, self.shape))
        parts = (self.component, shape, self.precision, self.backend, self.target, self.digest[:8])
        return "-".join(parts)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "EngineSpec":
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**values)


def digest(content: Any) -> str:
    """SHA-256, in hex, of a value's JSON with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidRequest(f"got the {field} {value!r}, expected one of {', '.join(known)}")
