"""What engines cost and what they bring: `python -m hyvideo_rt.bench.engines [--out F] [--gpu]`.

Per backend and size: build (all engines of the size), file size, load (from the store into the process, its
checks included, while every other engine stays), swap (to a size whose engines are loaded), the first step,
memory. Bind, once per backend, lays out the weights. What cannot be built or does not load has its reason.

On a CPU the embedded model, and a steady step and a tile, each turn by turn with eager; with --gpu the
published sizes, random weights and TensorRT too: there `bench.steps` has the steady step.
"""

import argparse
import functools
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.building import BACKENDS, build, store_in
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.memory import Watch
from hyvideo_rt.bench.networks import TEXT_TOKENS, Networks, embedded, published, step, step_inputs
from hyvideo_rt.bench.peers import import_libraries
from hyvideo_rt.bench.rungs import Row, reason_of
from hyvideo_rt.bench.timing import Ratio, Timing, race, timed
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import load_engine, target_for
from hyvideo_rt.engine_set import EngineSet, Target, specs_of
from hyvideo_rt.engines.backends import Run
from hyvideo_rt.engines.spec import BackendName, EngineSpec
from hyvideo_rt.models.dit import Blocks
from hyvideo_rt.models.tiling import Tiling
from hyvideo_rt.pipeline import Precision

CPU_SIZES = ("64x64x17", "64x96x17", "64x64x33")
GPU_SIZES = ("544x960x129", "720x1280x129")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="the published sizes, random weights")
    parser.add_argument("--runs", type=int, default=9, help="of a steady step and tile on a CPU (9)")
    parser.add_argument("--sizes", nargs="+")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    networks = published() if args.gpu else embedded()
    device, backends = networks.device, BACKENDS[networks.device.type]
    sizes = args.sizes or (GPU_SIZES if args.gpu else CPU_SIZES)
    workload = Workload(networks.weights, sizes, 1, str(Precision.default(device)), ["eager", *backends])
    import_libraries(device)
    result: dict[str, Any] = {
        "conditions": conditions(device, workload),
        "limits": asdict(limits.measure(device)),
        "backends": [],
    }

    def keep(row: Row) -> None:
        print(json.dumps(row), flush=True)
        if args.out:
            args.out.write_text(json.dumps(result, indent=2) + "\n")

    for backend in backends:
        found: Row = {"backend": backend, "bind_s": None, "rows": []}
        result["backends"].append(found)
        with tempfile.TemporaryDirectory() as folder:
            measure(Visit(networks, backend, Path(folder)), sizes, args.runs, found, keep)


class Visit:
    """One backend in one process; sizes come one after the other, as a server that swaps would meet them."""

    def __init__(self, networks: Networks, backend: BackendName, folder: Path) -> None:
        self.networks, self.folder, self.device = networks, folder, networks.device
        self.target: Target = target_for(backend, Precision.default(self.device), self.device)
        self._loaded: dict[EngineSpec, Run] = {}
        self._engines: EngineSet | None = None
        self.bind_s: float | None = None

    def engines(self) -> EngineSet:
        """Bound to the weights when they are first asked for: some copy them all."""
        if self._engines is None:
            n = self.networks
            make = functools.partial(EngineSet, n.config, self.target, n.dit, n.vae, self._loaded.__getitem__)
            seconds, engines = timed(make, self.device)
            self._engines, self.bind_s = engines, round(seconds, 4)
        return self._engines

    def load(self, specs: Sequence[EngineSpec]) -> None:
        store = store_in(self.folder)
        self._loaded |= {spec: load_engine(store, self.device, spec) for spec in specs}


@torch.inference_mode()
def measure(visit: Visit, sizes: Sequence[str], runs: int, found: Row, keep: Callable[[Row], None]) -> None:
    """A row per size, the reason where there is none, each kept at once."""
    for size in sizes:
        try:
            row = row_of(visit, Bucket.parse(size), runs)
        except Exception as error:
            row = {"reason": reason_of(error)}
        row = {"size": size} | row
        found["bind_s"] = visit.bind_s
        found["rows"].append(row)
        keep({"backend": found["backend"]} | row)


def row_of(visit: Visit, bucket: Bucket, runs: int) -> Row:
    networks, device = visit.networks, visit.device
    specs = specs_of(networks.config, bucket, visit.target)
    manifests = build(networks.config, specs, device, visit.folder)
    watch = Watch(device)
    load_s, _ = timed(functools.partial(visit.load, specs), device)
    engines = visit.engines()
    swap_s, blocks = timed(functools.partial(engines.blocks, bucket), device)
    first_s, _ = timed(step(networks.dit, step_inputs(networks, bucket), blocks), device)
    row = {
        "engines": len(specs),
        "build_s": round(sum(manifest.build_s for manifest in manifests), 2),
        "bytes": sum(manifest.size_bytes for manifest in manifests),
        "load_s": round(load_s, 4),
        "swap_s": round(swap_s, 6),
        "first_step_s": round(first_s, 4),
    } | asdict(watch.memory())
    return row | steady(networks, bucket, engines, blocks, runs) if device.type == "cpu" else row


def steady(
    networks: Networks, bucket: Bucket, engines: EngineSet, blocks: Blocks, runs: int
) -> dict[str, object]:
    """A step and a whole tile, turn by turn with eager; flops is the arithmetic of one."""
    config, device = networks.config, networks.device
    tile = max(Tiling.decode(config.vae).tile_shapes(bucket.latent_shape))
    dtype = networks.vae.post_quant_conv.weight.dtype
    z = torch.randn(1, config.vae.latent_channels, *tile, device=device, dtype=dtype)
    inputs = step_inputs(networks, bucket)
    steps = {"engines": step(networks.dit, inputs, blocks), "eager": step(networks.dit, inputs)}
    tiles = {"engines": lambda: engines.decode(z), "eager": lambda: networks.vae.decode(z)}
    flops = work.step_flops(config, bucket, TEXT_TOKENS[device.type])
    return {
        "step": _raced(steps, flops, runs, device),
        "tile": _raced(tiles, work.tile_flops(config.vae, tile), runs, device),
    }


def _raced(
    contestants: dict[str, Callable[[], Tensor]], flops: int, runs: int, device: torch.device
) -> dict[str, object]:
    rounds = race(contestants, runs, device=device)
    timings = {name: asdict(Timing.of(seconds)) for name, seconds in rounds.items()}
    return timings | {"flops": flops, "ratio": asdict(Ratio.of(rounds["eager"], rounds["engines"]))}


if __name__ == "__main__":
    main()
