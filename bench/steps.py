"""One denoising step and one VAE decode, optimisation by optimisation: `python -m hyvideo_rt.bench.steps`.

The rungs of a ladder: diffusers and xDiT, our networks with the plain operators, then with one thing added at
a time, and engines at the end. All have the same weights and inputs, in one process, turn by turn. A rung
that cannot run has its reason instead. On a CPU the embedded model; on a GPU the published one with random
weights. A lossy rung names the setting of `bench.quality` that tells what it does to videos.
"""

import argparse
import functools
import itertools
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.attention import Setting, choose_attention
from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.building import BACKENDS, built
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.networks import (
    TEXT_TOKENS,
    Networks,
    StepInputs,
    dit_in_8_bits,
    dit_with,
    embedded,
    published,
    step,
    step_inputs,
    vae_with,
    weights_in_8_bits,
)
from hyvideo_rt.bench.peers import diffusers_decode, diffusers_step, import_libraries, xdit_step
from hyvideo_rt.bench.quality_tables import quality_words
from hyvideo_rt.bench.rungs import Row, Run, Rung, climb
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import target_for
from hyvideo_rt.cli.ops_choice import attention_cache
from hyvideo_rt.engine_set import EngineSet, specs_of
from hyvideo_rt.engines.spec import BackendName
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.kernels.ops import REFERENCE, Ops
from hyvideo_rt.models.tiling import Tiling, run_tiled
from hyvideo_rt.pipeline import Precision
from hyvideo_rt.weights.checkpoint import empty_dit

SIZES = {"cpu": ("64x64x17", "64x96x17", "64x64x33"), "cuda": ("544x960x129", "720x1280x129")}
OURS = "hyvideo_rt"  # the rung with plain operators; those after it add to it


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+")
    parser.add_argument("--stages", nargs="+", choices=["denoise", "decode"], default=["denoise", "decode"])
    parser.add_argument("--rungs", nargs="+", metavar="NAME", help="only these (all)")
    parser.add_argument("--attention", default="fa3", help="lossless, of a GPU's rungs that choose one (fa3)")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = embedded() if device.type == "cpu" else published()
    attention = "sdpa" if device.type == "cpu" else args.attention
    sizes = args.sizes or SIZES[device.type]
    workload = Workload(
        networks.weights,
        sizes,
        1,
        f"{Precision.default(device)}; a lossy rung's as it is called",
        ["eager", *BACKENDS[device.type]],
    )
    import_libraries(device)
    limit = limits.measure(device)
    result: dict[str, Any] = {
        "conditions": conditions(device, workload),
        "text_tokens": TEXT_TOKENS[device.type],
        "limits": asdict(limit),
        "rows": [],
    }
    for stage, size in itertools.product(args.stages, sizes):
        bucket = Bucket.parse(size)
        done, about = list(result["rows"]), {"stage": stage, "size": size, "tokens": bucket.num_tokens}
        keep = functools.partial(write, args.out, result, done, about)
        with tempfile.TemporaryDirectory() as folder:
            rungs = chosen(ladder(stage, networks, bucket, attention, Path(folder)), args.rungs)
            climb(rungs, flops_of(stage, networks, bucket), limit, device, args.runs, keep)
        for row in result["rows"][len(done) :]:
            videos = {"videos": quality_words(row["quality"])} if row["quality"] else {}
            print(json.dumps(row | videos), flush=True)


def chosen(rungs: Sequence[Rung], names: Sequence[str] | None) -> list[Rung]:
    """Raises InvalidRequest for a name that no rung has."""
    known = {rung.name: rung for rung in rungs}
    if unknown := [name for name in names or () if name not in known]:
        raise InvalidRequest(f"got the rung {unknown[0]!r}; expected one of {', '.join(known)}")
    return [known[name] for name in names] if names else list(rungs)


def write(out: Path | None, result: dict[str, Any], done: list[Row], about: Row, rows: list[Row]) -> None:
    """The result with this ladder's rows after those that are done."""
    result["rows"] = [*done, *(about | row for row in rows)]
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")


def flops_of(stage: str, networks: Networks, bucket: Bucket) -> work.Flops:
    if stage == "decode":
        return work.Flops(work.decode_flops(networks.config, bucket))
    return work.step_parts(networks.config, bucket, TEXT_TOKENS[networks.device.type])


def ladder(stage: str, networks: Networks, bucket: Bucket, attention: str, folder: Path) -> list[Rung]:
    make = denoise_ladder if stage == "denoise" else decode_ladder
    return make(networks, bucket, attention, folder)


def denoise_ladder(networks: Networks, bucket: Bucket, attention: str, folder: Path) -> list[Rung]:
    """On a CPU its lossy rung is bf16, which is the default of a GPU."""
    inputs, dtype = functools.cache(lambda: step_inputs(networks, bucket)), networks.dtype

    def from_engines(backend: BackendName, half: bool = False) -> Run:
        used = in_bf16(networks) if half else networks
        engines = engine_set(used, bucket, backend, "denoise", attention, folder)
        return step(used.dit, inputs(), engines.blocks(bucket))

    def engines(backend: BackendName) -> Rung:
        return Rung(f"engines of {backend}", lambda: from_engines(backend), dtype)

    rungs = [
        Rung("diffusers", lambda: diffusers_step(networks, inputs()), dtype, compiles=False),
        Rung("diffusers, compiled", lambda: diffusers_step(networks, inputs(), compiled=True), dtype),
        Rung("xDiT", lambda: xdit_step(networks, inputs()), dtype, compiles=False),
        Rung(OURS, lambda: step(dit_with(networks, REFERENCE), inputs()), dtype, compiles=False),
    ]
    if networks.device.type == "cuda":
        rungs += gpu_rungs(networks, inputs, attention)
    rungs += map(engines, BACKENDS[networks.device.type])
    if networks.device.type == "cpu":
        half = functools.partial(from_engines, "inductor", half=True)
        rungs.append(Rung("engines in bf16", half, torch.bfloat16, "fp32"))
    return rungs


def gpu_rungs(networks: Networks, inputs: Callable[[], StepInputs], attention: str) -> list[Rung]:
    """Triton kernels with every attention: first those that round nothing away, then in 8 bits one by one."""
    narrow = functools.cache(lambda: weights_in_8_bits(networks))  # 13 GB: once

    def wide(name: str) -> Run:
        return step(dit_with(networks, triton(networks, name)), inputs())

    def in_8_bits(name: str) -> Run:
        return step(dit_in_8_bits(networks, narrow(), triton(networks, name)), inputs())

    lossless = dict.fromkeys((attention, "cudnn"))
    makes: dict[str, tuple[Callable[[], Run], str | None]] = {"Triton kernels": (lambda: wide("sdpa"), None)}
    makes |= {f"{name} attention": (functools.partial(wide, name), None) for name in lossless}
    makes |= {
        "fp8 products": (lambda: in_8_bits(attention), "8-bit products"),
        "fp8 attention": (lambda: wide("fa3-fp8"), "8-bit attention"),
        "fp8 products and attention": (lambda: in_8_bits("fa3-fp8"), "8-bit products and attention"),
        "cudnn fp8 attention": (lambda: wide("cudnn-fp8"), "8-bit attention and output"),
        "sage attention": (lambda: wide("sage"), "SageAttention (INT8)"),
    }
    return [Rung(name, make, networks.dtype, quality) for name, (make, quality) in makes.items()]


def decode_ladder(networks: Networks, bucket: Bucket, attention: str, folder: Path) -> list[Rung]:
    """From latents to pictures, by the original's tiles; the VAE's own attention is computed by torch."""
    dtype = networks.vae.post_quant_conv.weight.dtype
    generator = torch.Generator(networks.device).manual_seed(0)
    shape = (1, networks.config.vae.latent_channels, *bucket.latent_shape)
    z = torch.randn(shape, generator=generator, device=networks.device).to(dtype)
    tiling = Tiling.decode(networks.config.vae)

    def ours(decode: Callable[[Tensor], Tensor]) -> Run:
        return torch.inference_mode()(lambda: run_tiled(decode, z, tiling))

    def with_triton() -> Run:
        return ours(vae_with(networks, triton(networks, "sdpa")).decode)

    def engines(backend: BackendName) -> Rung:
        def make() -> Run:
            return ours(engine_set(networks, bucket, backend, "decode", attention, folder).decode)

        return Rung(f"engines of {backend}", make, dtype)

    rungs = [
        Rung("diffusers", lambda: diffusers_decode(networks, z), dtype, compiles=False),
        Rung("diffusers, compiled", lambda: diffusers_decode(networks, z, compiled=True), dtype),
        Rung(OURS, lambda: ours(networks.vae.decode), dtype, compiles=False),
    ]
    if networks.device.type == "cuda":
        rungs.append(Rung("Triton kernels", with_triton, dtype))
    return [*rungs, *map(engines, BACKENDS[networks.device.type])]


def triton(networks: Networks, attention: str) -> Ops:
    """Raises InvalidRequest for attention that does not work here: some would end this process."""
    from hyvideo_rt.kernels.triton_ops import triton_ops  # a CPU need not have it

    setting = Setting(networks.device, networks.dtype, networks.config.dit.head_dim)
    return triton_ops(*choose_attention(attention, setting, attention_cache()))


def in_bf16(networks: Networks) -> Networks:
    """A copy of the DiT in half the bits."""
    dit = empty_dit(networks.config.dit, REFERENCE, fp8=False)
    dit.load_state_dict({k: v.bfloat16() for k, v in networks.dit.state_dict().items()}, assign=True)
    return Networks(networks.config, dit.eval(), networks.vae, networks.device)


def engine_set(
    networks: Networks, bucket: Bucket, backend: BackendName, stage: str, attention: str, folder: Path
) -> EngineSet:
    """Of what a stage needs. Raises EngineError."""
    precision = replace(Precision.default(networks.device), dit=networks.dtype)
    target = target_for(backend, precision, networks.device, attention)
    specs = [
        spec
        for spec in specs_of(networks.config, bucket, target)
        if (spec.component == "vae_decoder_tile") == (stage == "decode")
    ]
    make = built(networks.config, specs, target, networks.device, folder)
    return make(dit_with(networks, REFERENCE), vae_with(networks, REFERENCE))


if __name__ == "__main__":
    main()
