"""What engines cost and what they bring: `python -m hyvideo_rt.bench.engines [--out F] [--gpu]`.

Per backend and size: build (all engines of the size), file size, load (from the store into the process, its
checks included, while every other engine stays), swap (to a size whose engines are loaded), the first step,
a steady step and a tile, each turn by turn with eager. Bind, once per backend, lays out the weights.

On a CPU the embedded model; with --gpu the published sizes with random weights and Inductor alone.
"""

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from hyvideo_rt.bench.conditions import conditions
from hyvideo_rt.bench.footprint import random_module
from hyvideo_rt.bench.timing import interleave
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import load_engine, target_for
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.config import MODELS, ModelConfig
from hyvideo_rt.engine_set import EngineSet, specs_of
from hyvideo_rt.engines.backends import Run
from hyvideo_rt.engines.spec import BackendName, EngineSpec
from hyvideo_rt.engines.store import EngineStore
from hyvideo_rt.export.build import Builder
from hyvideo_rt.kernels.rope import rope_table
from hyvideo_rt.models.dit import Blocks, HunyuanVideoDiT
from hyvideo_rt.models.tiling import Tiling
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.pipeline import Precision

CPU_SIZES = ("64x64x17", "64x96x17", "64x64x33")
GPU_SIZES = ("544x960x129", "720x1280x129")
TEXT_TOKENS = 20
Result = TypeVar("Result")


@dataclass(frozen=True)
class Networks:
    config: ModelConfig
    dit: HunyuanVideoDiT
    vae: CausalVAE
    device: torch.device


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="the published sizes, random weights")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--sizes", nargs="+")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    networks = published() if args.gpu else embedded()
    backends: tuple[BackendName, ...] = ("inductor",) if args.gpu else ("inductor", "openvino")
    sizes = args.sizes or (GPU_SIZES if args.gpu else CPU_SIZES)
    result = {
        "conditions": conditions(networks.device, "random" if args.gpu else "tiny"),
        "backends": [measure(networks, backend, sizes, args.runs) for backend in backends],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def embedded() -> Networks:
    checkpoint, device = embedded_tiny(), torch.device("cpu")
    dit, vae = checkpoint.load_dit(device, torch.float32), checkpoint.load_vae(device, torch.float32)
    return Networks(checkpoint.config, dit, vae, device)


def published() -> Networks:
    config, device = MODELS["HYVideo-T/2-cfgdistill"], torch.device("cuda")
    precision = Precision.default(device)
    dit = random_module(lambda: HunyuanVideoDiT(config.dit), precision.dit)
    return Networks(config, dit, random_module(lambda: CausalVAE(config.vae), precision.vae), device)


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
            first_s, _ = timed(device, step(networks, bucket, blocks))
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
    """A step and a whole tile, turn by turn with eager."""
    tile = max(Tiling.decode(networks.config.vae).tile_shapes(bucket.latent_shape))
    dtype = networks.vae.post_quant_conv.weight.dtype
    z = torch.randn(1, networks.config.vae.latent_channels, *tile, device=networks.device, dtype=dtype)
    steps = interleave(
        {"engines": step(networks, bucket, blocks), "eager": step(networks, bucket, networks.dit.blocks())},
        runs,
        device=networks.device,
    )
    tiles = interleave(
        {"engines": lambda: engines.decode(z), "eager": lambda: networks.vae.decode(z)},
        runs,
        device=networks.device,
    )
    return {
        name: {who: asdict(timing) for who, timing in timings.items()}
        for name, timings in (("step", steps), ("tile", tiles))
    }


def step(networks: Networks, bucket: Bucket, blocks: Blocks) -> Callable[[], Tensor]:
    """One evaluation of the DiT on random latents."""
    dit, device = networks.dit, networks.device
    dtype, generator = dit.img_in.proj.weight.dtype, torch.Generator(device).manual_seed(0)
    random = functools.partial(torch.randn, generator=generator, device=device)
    rope = rope_table(bucket.grid, dit.config.rope_dims, dit.config.rope_theta)
    conditioning = dit.condition(
        torch.tensor([700.0], device=device),
        random((1, TEXT_TOKENS, dit.config.text_dim)).to(dtype),
        random((1, dit.config.pooled_dim)).to(dtype),
        torch.tensor([6000.0], device=device),
    )
    latents, tables = random((1, 16, *bucket.latent_shape)), (rope[0].to(device), rope[1].to(device))
    return torch.inference_mode()(lambda: dit(latents, conditioning, tables, blocks))


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
