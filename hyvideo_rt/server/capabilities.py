"""What a loaded worker can make: the sizes that are built, and those that fit its memory."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import ModelConfig, presets_of
from hyvideo_rt.errors import DoesNotFit, InvalidRequest
from hyvideo_rt.pipeline import Precision
from hyvideo_rt.plan import gib, make_plan


@dataclass(frozen=True)
class Capabilities:
    """Reported once by each worker. built: sizes with all their engines in the store, by `backend`.

    eager: sizes that are not built run without engines; otherwise they are refused. budget_bytes: the
    device's free memory before anything was loaded.
    """

    device: str
    backend: str
    built: tuple[str, ...]
    eager: bool
    offload: bool
    budget_bytes: int
    precision: Mapping[str, Any]
    identity: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Capabilities":
        return cls(**{**content, "built": tuple(content["built"])})

    def check(self, config: ModelConfig, bucket: Bucket) -> None:
        """Raises InvalidRequest for a size that would have to be built and is not, DoesNotFit for memory."""
        if not self.eager and str(bucket) not in self.built:
            raise InvalidRequest(
                f"got {bucket}, which is not built for {self.backend}; built are "
                f"{', '.join(self.built) or 'none'}\n"
                f"  hyvideo-rt build --backend {self.backend} --preset {bucket}, then start the server with "
                f"--warm {bucket}"
            )
        if not self.fits(config, bucket):
            needed = gib(self._peak_bytes(config, bucket))
            raise DoesNotFit(
                f"{bucket} needs {needed} on {self.device}; {gib(self.budget_bytes)} are free\n"
                f"  {self._largest(config, bucket)}"
            )

    def fits(self, config: ModelConfig, bucket: Bucket) -> bool:
        return self._peak_bytes(config, bucket) <= self.budget_bytes

    def _peak_bytes(self, config: ModelConfig, bucket: Bucket) -> int:
        device = torch.device(self.device)  # a name: nothing is initialised on it
        precision = precision_from_json(self.precision)
        return make_plan(config, bucket, precision, device, offload=self.offload).peak_bytes

    def _largest(self, config: ModelConfig, than: Bucket) -> str:
        smaller = [
            b for b in presets_of(config).values() if b.num_tokens < than.num_tokens and self.fits(config, b)
        ]
        if not smaller:
            return "no preset fits on this server"
        return f"the largest preset that fits is {max(smaller, key=lambda bucket: bucket.num_tokens)}"


def precision_to_json(precision: Precision) -> dict[str, Any]:
    values = ((field.name, getattr(precision, field.name)) for field in fields(precision))
    return {k: str(v).removeprefix("torch.") if isinstance(v, torch.dtype) else v for k, v in values}


def precision_from_json(content: Mapping[str, Any]) -> Precision:
    values = dict(content)
    for name in ("dit", "vae", "llm", "clip"):
        values[name] = getattr(torch, values[name])
    return Precision(**{**values, "wide": tuple(values["wide"])})
