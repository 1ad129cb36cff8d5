"""What this device can do at most, measured: `python -m hyvideo_rt.bench.limits`.

A copy's GB/s bound what moves data; a large product's TF/s, per dtype, bound what multiplies. Every table's
last column is a share of one of them, or of both kinds of products where some are in 8 bits. Where a result
has no measured limit, the card's data sheet stands in.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hyvideo_rt.bench.conditions import machine
from hyvideo_rt.bench.timing import interleave
from hyvideo_rt.bench.work import Flops
from hyvideo_rt.kernels.fp8 import E4M3

CALLS = 10  # per measurement: a single launch is as short as the launching
GPU_SIDE, CPU_SIDE = 8192, 2048  # of the square matrices
DATA_SHEET = {"NVIDIA H100 80GB HBM3": {16: 989.0, 8: 1979.0}}  # dense TF/s, by bits
DTYPES: dict[str, tuple[torch.dtype, ...]] = {
    "cuda": (torch.float32, torch.float16, torch.bfloat16, E4M3),
    "cpu": (torch.float32, torch.bfloat16),
}


@dataclass(frozen=True)
class Limits:
    """copy_gb_s counts bytes read and bytes written; matrix_tf_s is by the dtype's name, such as bfloat16."""

    copy_gb_s: float
    matrix_tf_s: Mapping[str, float]

    def share(self, flops: float, seconds: float, dtype: torch.dtype) -> float:
        """Of what a large product in this dtype attains: 1 is the limit."""
        return flops / seconds / 1e12 / self.matrix_tf_s[name_of(dtype)]

    def least_s(self, flops: Flops, dtype: torch.dtype, setting: str | None = None) -> float:
        """Seconds of these in this dtype; what the setting of `bench.quality` rounds to 8 bits, in E4M3."""
        tf_s = {16: self.matrix_tf_s[name_of(dtype)]}
        if name_of(E4M3) in self.matrix_tf_s:
            tf_s[8] = self.matrix_tf_s[name_of(E4M3)]
        return least_s(flops, setting, tf_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps({"conditions": machine(device), **vars(measure(device, args.runs))}, indent=2))


@torch.inference_mode()
def measure(device: torch.device, runs: int = 5) -> Limits:
    """On random data: a GPU multiplies zeros faster than it ever will the model's numbers."""
    return Limits(
        copy_rate(device, runs), {name_of(d): matrix_rate(device, d, runs) for d in _dtypes(device)}
    )


def copy_rate(device: torch.device, runs: int) -> float:
    """GB/s, bytes read plus bytes written."""
    x = torch.randn(2**30 if device.type == "cuda" else 2**24, device=device)
    y = torch.empty_like(x)
    timing = interleave({"": lambda: y.copy_(x)}, runs, device=device, calls=CALLS)[""]
    return round(2 * x.nbytes / timing.median_s / 1e9, 1)


def matrix_rate(device: torch.device, dtype: torch.dtype, runs: int) -> float:
    """TF/s of one square product; in E4M3 with a scale per row and column, as our linear layers."""
    side = GPU_SIDE if device.type == "cuda" else CPU_SIDE
    multiply = _product(side, device, dtype)
    calls = CALLS if device.type == "cuda" else 2
    timing = interleave({"": multiply}, runs, warm_up=2, device=device, calls=calls)[""]
    return float(f"{2 * side**3 / timing.median_s / 1e12:.4g}")


def least_s(flops: Flops, setting: str | None, tf_s: Mapping[int, float]) -> float:
    """Seconds of these at the TF/s of their bits, some of them 8 under a setting of `bench.quality`."""
    return sum(each / tf_s[bits] for bits, each in flops.by_bits(setting).items()) / 1e12


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def data_sheet(gpu: str, bits: int) -> float | None:
    """TF/s that the maker states for dense products, if we know this card."""
    return DATA_SHEET.get(gpu, {}).get(bits)


def _product(side: int, device: torch.device, dtype: torch.dtype) -> Callable[[], Tensor]:
    x, y = (torch.randn(side, side, device=device) for _ in range(2))
    if dtype != E4M3:
        a, b = x.to(dtype), y.to(dtype)
        return lambda: a @ b
    a8, b8 = x.to(E4M3), y.to(E4M3).t()
    scale = torch.ones(side, 1, device=device)
    return lambda: torch._scaled_mm(a8, b8, scale, scale.t(), out_dtype=torch.bfloat16)


def _dtypes(device: torch.device) -> list[torch.dtype]:
    """Those that this device multiplies; E4M3 only from compute capability 8.9 on."""
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9)
    return [dtype for dtype in DTYPES[device.type] if not (old and dtype == E4M3)]


if __name__ == "__main__":
    main()
