"""Loading a random DiT from disk: peak host memory against the size of the checkpoint, seconds and GB/s.

    python -m hyvideo_rt.bench.weights [--gib 2] [--out results.json]

Each row loads in a fresh process on the CPU. Memory is the peak resident size during the load minus the
resident size before it, mapped pages included. The files were just written, so they come from the page cache
where the machine's memory allows. Exits with 1 if a row needs more than 1.2 times its checkpoint.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.limits import copy_rate
from hyvideo_rt.bench.memory import forget_host_peak, host_now, host_peak
from hyvideo_rt.config import DiTConfig
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.linear import Fp8Linear
from hyvideo_rt.weights.layouts import KeyMap, diffusers_from_original, original_from_diffusers, same_names
from hyvideo_rt.weights.loading import load_into
from hyvideo_rt.weights.model_configs import dit_json, infer_dit_config, read_dit_config
from hyvideo_rt.weights.pickle_files import PickleFile
from hyvideo_rt.weights.safetensors_files import open_sharded, write_safetensors
from hyvideo_rt.weights.tensor_files import TensorSource, TensorSpec

LIMIT = 1.2
SHARDS = 6  # as many as the published model has
INDEX = "diffusion_pytorch_model.safetensors.index.json"
PICKLE = "mp_rank_00_model_states.pt"
CASES = (("diffusers", "bf16"), ("original", "bf16"), ("diffusers", "fp8"))


@dataclass(frozen=True)
class Loaded:
    """One row: where the tensors lay, and what loading them took."""

    layout: str
    precision: str
    checkpoint_bytes: int
    weight_bytes: int  # of the network afterwards
    peak_bytes: int
    seconds: float

    @property
    def ratio(self) -> float:
        return self.peak_bytes / self.checkpoint_bytes

    def row(self) -> dict[str, float | str]:
        return {
            "layout": self.layout,
            "precision": self.precision,
            "checkpoint_gib": round(self.checkpoint_bytes / 2**30, 3),
            "peak_ratio": round(self.ratio, 3),
            "least_ratio": round(self.weight_bytes / self.checkpoint_bytes, 3),
            "seconds": round(self.seconds, 2),
            "gb_per_s": round(self.checkpoint_bytes / 1e9 / self.seconds, 2),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gib", type=float, default=2.0, help="size of the checkpoint")
    parser.add_argument("--out", type=Path, help="write the rows here as JSON")
    parser.add_argument(
        "--load", nargs=3, metavar=("LAYOUT", "PRECISION", "FOLDER"), help="load one, print JSON"
    )
    args = parser.parse_args()
    if args.load:
        layout, precision, folder = args.load
        print(json.dumps(vars(load(layout, precision, Path(folder)))))
        return 0
    rows = measure(args.gib)
    table = [row.row() for row in rows]
    print_table(table)
    if args.out:
        cpu = torch.device("cpu")
        workload = Workload("random", [f"{args.gib:g} GiB"], 0, "bf16 and fp8", ["eager"])
        found = {"conditions": conditions(cpu, workload), "copy_gb_s": copy_rate(cpu, runs=5), "rows": table}
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    return int(any(row.ratio > LIMIT for row in rows))


def measure(gib: float) -> list[Loaded]:
    """Write a checkpoint of about `gib` GiB in both layouts and load it in a process per case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoints(folder, config_of_size(gib))
        os.sync()  # or the first case would be timed beside the write-back
        return [_load_in_new_process(layout, precision, folder) for layout, precision in CASES]


def config_of_size(gib: float) -> DiTConfig:
    """As many blocks of width 1024, one double to two single, as come closest to `gib` GiB in bf16."""
    width = 1024
    pair_bytes = (36 + 2 * 15) * width**2 * 2  # multiply-add weights of a double and two single blocks
    pairs = max(1, round((gib * 2**30 - 35 * width**2 * 2) / pair_bytes))  # embedders and refiner: 35 D^2
    return DiTConfig(
        hidden_size=width, num_heads=8, num_double_blocks=pairs, num_single_blocks=2 * pairs, text_dim=1024
    )


def write_checkpoints(folder: Path, config: DiTConfig) -> None:
    """Random bf16 weights as sharded safetensors under diffusers' names, and as upstream's `.pt`."""
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in HunyuanVideoDiT(config).state_dict().items()}
    torch.save({"module": {name: _random(shape) for name, shape in shapes.items()}}, folder / PICKLE)
    (folder / "config.json").write_text(json.dumps(dit_json(config, "diffusers")))
    specs = list(_diffusers_specs(config, shapes).items())
    weight_map: dict[str, str] = {}
    for i in range(SHARDS):
        shard = dict(specs[i::SHARDS])
        name = f"diffusion_pytorch_model-{i + 1:05}-of-{SHARDS:05}.safetensors"
        write_safetensors(folder / name, shard, (_random(spec.shape) for spec in shard.values()), {})
        weight_map |= dict.fromkeys(shard, name)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def load(layout: str, precision: str, folder: Path) -> Loaded:
    """Load one case in this process."""
    source, config, keys = _open(layout, folder)
    with torch.device("meta"):
        dit = HunyuanVideoDiT(config, block_linear=Fp8Linear if precision == "fp8" else nn.Linear)
    keys = keys or same_names(dit.state_dict())
    forget_host_peak()
    before = host_now()
    start = time.perf_counter()
    load_into(dit, source, keys, device="cpu", dtype=torch.bfloat16)
    seconds = time.perf_counter() - start
    weight_bytes = sum(tensor.nbytes for tensor in dit.state_dict().values())
    return Loaded(layout, precision, source.nbytes, weight_bytes, host_peak() - before, seconds)


def print_table(rows: list[dict[str, float | str]]) -> None:
    print("  ".join(f"{name:>14}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>14}" for value in row.values()))


def _open(layout: str, folder: Path) -> tuple[TensorSource, DiTConfig, KeyMap | None]:
    if layout == "diffusers":
        config = read_dit_config(folder / "config.json", "diffusers")
        return open_sharded(folder / INDEX), config, original_from_diffusers(config)
    source = TensorSource([PickleFile(folder / PICKLE, wrappers=("module", "ema"), key="module")])
    return source, infer_dit_config(source), None


def _load_in_new_process(layout: str, precision: str, folder: Path) -> Loaded:
    command = [sys.executable, "-m", "hyvideo_rt.bench.weights", "--load", layout, precision, str(folder)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Loaded(**json.loads(result.stdout))


def _diffusers_specs(config: DiTConfig, shapes: dict[str, tuple[int, ...]]) -> dict[str, TensorSpec]:
    specs = {}
    for name, pieces in diffusers_from_original(config).items():
        original = shapes[pieces[0].name]
        rows = sum((original[0] if piece.stop is None else piece.stop) - piece.start for piece in pieces)
        specs[name] = TensorSpec((rows, *original[1:]), torch.bfloat16)
    return specs


def _random(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, dtype=torch.bfloat16)


if __name__ == "__main__":
    sys.exit(main())
