"""What a video costs and whether it fits, before anything is loaded.

Weights are counted exactly, on the meta device. Activations are a model of the eager networks: how many
tensors of the largest size live at once, measured on an H100 (`bench.footprint` compares plan and device).
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from hyvideo_rt.buckets import PRESETS, Bucket
from hyvideo_rt.config import DiTConfig, ModelConfig, VAEConfig
from hyvideo_rt.errors import DoesNotFit
from hyvideo_rt.models.clip import ClipTextEncoder
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.linear import Fp8Linear
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.tiling import SPACE, TIME, Tiling
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.pipeline import Precision

GIB = 1024**3
TEXT_TOKENS = 351  # template, prompt and padding of the longest prompt
DIT_STREAMS = 20  # live tensors [tokens, D] at the peak of a block: 19.1 measured
VAE_TENSORS = 5.5  # live tensors [256 channels, frames, height, width] at a tile's last level: 5.5 measured
LLM_TENSORS = 8  # live tensors [tokens, intermediate size]
OVERHEAD = 1 * GIB  # context, libraries' workspaces and the allocator's rounding, on a GPU


@dataclass(frozen=True)
class Plan:
    """Bytes on the device, stage by stage, for one bucket; `offload` and `fp8` are decided.

    weights: of each component; stages: the peak while encoding, denoising and decoding, weights included.
    """

    bucket: Bucket
    offload: bool
    fp8: bool
    weights: dict[str, int]
    stages: dict[str, int]

    @property
    def peak_bytes(self) -> int:
        return max(self.stages.values())

    @property
    def host_bytes(self) -> int:
        """What rests on the host under offload."""
        return sum(self.weights.values()) if self.offload else 0


def make_plan(
    config: ModelConfig,
    bucket: Bucket,
    precision: Precision,
    device: torch.device,
    *,
    offload: bool = False,
) -> Plan:
    weights = weight_bytes(config, precision)
    work = {
        "encode": LLM_TENSORS * TEXT_TOKENS * config.llm.intermediate_size * precision.llm.itemsize,
        "denoise": _denoise_bytes(config.dit, bucket, precision),
        "decode": _decode_bytes(config.vae, bucket, precision),
    }
    visitors = {"encode": ("llm", "clip"), "denoise": ("dit",), "decode": ("vae",)}
    overhead = 0 if device.type == "cpu" else OVERHEAD
    stages = {}
    for stage, used in work.items():
        present = visitors[stage] if offload else weights
        stages[stage] = sum(weights[name] for name in present) + used + overhead
    return Plan(bucket, offload, precision.fp8, weights, stages)


def fitting_plan(
    config: ModelConfig,
    bucket: Bucket,
    precision: Precision,
    device: torch.device,
    *,
    offload: bool,
    budget_bytes: int,
) -> Plan:
    """The first plan within the budget: as asked, then with offload. Raises DoesNotFit with what would."""
    plans = [make_plan(config, bucket, precision, device, offload=offload)]
    if not offload and device.type != "cpu":
        plans.append(make_plan(config, bucket, precision, device, offload=True))
    for plan in plans:
        if plan.peak_bytes <= budget_bytes:
            return plan
    smallest = min(plans, key=lambda plan: plan.peak_bytes)
    raise DoesNotFit(
        f"{bucket} needs {gib(smallest.peak_bytes)} on {device} at {precision}"
        f"{' with offload' if smallest.offload else ''}; {gib(budget_bytes)} are free\n"
        f"  {_advice(config, bucket, precision, device, budget_bytes)}"
    )


@functools.cache
def weight_bytes(config: ModelConfig, precision: Precision) -> dict[str, int]:
    """Per component: dit, vae, llm (without the two layers that are never used) and clip."""
    with torch.device("meta"):
        block_linear = Fp8Linear if precision.fp8 else nn.Linear
        return {
            "dit": _module_bytes(HunyuanVideoDiT(config.dit, block_linear=block_linear), precision.dit),
            "vae": _module_bytes(CausalVAE(config.vae), precision.vae),
            "llm": _module_bytes(LlamaEncoder(config.llm), precision.llm),
            "clip": _module_bytes(ClipTextEncoder(config.clip), precision.clip),
        }


def free_bytes(device: torch.device) -> int:
    """What can still be allocated: free GPU memory, or the host's available memory within its cgroup."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(meminfo["MemAvailable"].split()[0]) * 1024
    return min([available, *_cgroup_room()])


def gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 1024**2:.1f} MiB"


def _module_bytes(module: nn.Module, dtype: torch.dtype) -> int:
    """At `dtype`, except for what is built in 8 bits."""
    kept = torch.float8_e4m3fn
    return sum(t.numel() * (1 if t.dtype == kept else dtype.itemsize) for t in module.state_dict().values())


def _denoise_bytes(config: DiTConfig, bucket: Bucket, precision: Precision) -> int:
    stream = (bucket.num_tokens + 256) * config.hidden_size * precision.dit.itemsize
    return DIT_STREAMS * stream


def _decode_bytes(config: VAEConfig, bucket: Bucket, precision: Precision) -> int:
    """A tile at the decoder's last level, and the row of tiles that waits to be blended."""
    tile = max(Tiling.decode(config).tile_shapes(bucket.latent_shape), key=math.prod)
    frames, height, width = (tile[0] - 1) * TIME + 1, tile[1] * SPACE, tile[2] * SPACE
    at_last_level = config.block_channels[1] * frames * height * width * precision.vae.itemsize
    chunk = 3 * frames * bucket.height * bucket.width * 4
    return int(VAE_TENSORS * at_last_level + 2 * chunk)


def _advice(
    config: ModelConfig, bucket: Bucket, precision: Precision, device: torch.device, budget_bytes: int
) -> str:
    """The least change that would fit: 8-bit weights, else the largest preset of those that do."""
    offload = device.type != "cpu"
    fp8 = replace(precision, fp8=True)

    def fits(bucket: Bucket, precision: Precision) -> bool:
        return make_plan(config, bucket, precision, device, offload=offload).peak_bytes <= budget_bytes

    if fits(bucket, fp8):
        return f"--use-fp8{' --use-cpu-offload' if offload else ''} would fit"
    for candidate in _smaller(PRESETS.values(), bucket):
        for choice in (precision, fp8):
            if fits(candidate, choice):
                return f"{candidate} would fit{' with --use-fp8' if choice.fp8 else ''}"
    return "no preset of this model fits: free some memory or use a larger device"


def _smaller(buckets: Iterable[Bucket], than: Bucket) -> list[Bucket]:
    return sorted((b for b in buckets if b.num_tokens < than.num_tokens), key=lambda b: -b.num_tokens)


def _cgroup_room() -> list[int]:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except OSError:
        return []
    return [] if limit == "max" else [int(limit) - used]
