"""What engines cost and what they bring: `python -m hyvideo_rt.bench.engines [--out F] [--gpu]`.

Per backend and size: build (all engines of the size), file size, load (from the store into the process, its
checks included, while every other engine stays), swap (to a size whose engines are loaded), the first step,
a steady step and a tile, each turn by turn with eager. Bind, once per backend, lays out the weights.

On a CPU the embedded model; with --gpu the published sizes, random weights, and the GPU's best backend too.
"""

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.networks import TEXT_TOKENS, Networks, embedded, published, step, step_inputs
from hyvideo_rt.bench.timing import Ratio, Timing, race
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import best_backend, load_engine, target_for
from hyvideo_rt.engine_set import EngineSet, specs_of
from hyvideo_rt.engines.backends import Run
from hyvideo_rt.engines.spec import BackendName, EngineSpec
from hyvideo_rt.engines.store import EngineStore
from hyvideo_rt.export.build import Builder
from hyvideo_rt.models.dit import Blocks
from hyvideo_rt.models.tiling import Tiling
from hyvideo_rt.pipeline import Precision

CPU_SIZES = ("64x64x17", "64x96x17", "64x64x33")
GPU_SIZES = ("544x960x129", "720x1280x129")
Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="the published sizes, random weights")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--sizes", nargs="+")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    networks = published() if args.gpu else embedded()
    best = best_backend(networks.device) if args.gpu else "openvino"
    backends: list[BackendName] = list(dict.fromkeys(("inductor", best)))
    sizes = args.sizes or (GPU_SIZES if args.gpu else CPU_SIZES)
    workload = Workload(
        networks.weights, sizes, 1, str(Precision.default(networks.device)), ["eager", *backends]
    )
    result = {
        "conditions": conditions(networks.device, workload),
        "limits": asdict(limits.measure(networks.device)),
        "backends": [measure(networks, backend, sizes, args.runs) for backend in backends],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


@torch.inference_mode()
def measure(networks: Networks, backend: BackendName, sizes: Sequence[str], runs: int) -> dict[str, object]:
    """One backend; sizes one after the other, as a server that swaps between them would meet them."""
    config, device = networks.config, networks.device
    target = target_for(backend, Precision.default(device), device)
    with tempfile.TemporaryDirectory() as folder:
        store = EngineStore(Path(folder) / "engines", Path(folder) / "key")
        builder, loaded = Builder(config, store, device), dict[EngineSpec, Run]()
        bind_s, engines = timed(
            device,
            lambda: EngineSet(config, target, networks.dit, networks.vae, loaded.__getitem__),
        )
        rows = []
        for size in sizes:
            bucket = Bucket.parse(size)
            specs = specs_of(config, bucket, target)
            built = [builder.build(spec)[0].manifest for spec in specs]
            load = functools.partial(load_engine, store, device)
            load_s, new = timed(device, functools.partial(load_all, load, specs))
            loaded.update(new)
            swap_s, blocks = timed(device, functools.partial(engines.blocks, bucket))
            first_s, _ = timed(device, step(networks.dit, step_inputs(networks, bucket), blocks))
            rows.append(
                {
                    "size": size,
                    "engines": len(specs),
                    "build_s": round(sum(manifest.build_s for manifest in built), 2),
                    "bytes": sum(manifest.size_bytes for manifest in built),
                    "load_s": round(load_s, 4),
                    "swap_s": round(swap_s, 6),
                    "first_step_s": round(first_s, 4),
                }
                | steady(networks, bucket, engines, blocks, runs)
            )
    return {"backend": backend, "bind_s": round(bind_s, 4), "rows": rows}


def load_all(load: Callable[[EngineSpec], Run], specs: Sequence[EngineSpec]) -> dict[EngineSpec, Run]:
    return {spec: load(spec) for spec in specs}


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


def timed(device: torch.device, run: Callable[[], Result]) -> tuple[float, Result]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
