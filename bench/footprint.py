"""The memory plan against the device: `python -m hyvideo_rt.bench.footprint --sizes 544x960x129 --out F`.

Runs the published networks with random weights on a GPU, stage by stage, and prints what each took beside
what `plan` said: bytes at the peak, and the seconds of an encode, a step and a decode after a warm-up at a
small size, beside what the device's limit allows. For the time of a step against others' quote `bench.steps`.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.memory import Watch, give_back
from hyvideo_rt.bench.networks import TEXT_TOKENS, random_module
from hyvideo_rt.bench.timing import Timing, timed
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS, ModelConfig
from hyvideo_rt.kernels.attention_backends import BACKENDS
from hyvideo_rt.kernels.ops import REFERENCE, Ops
from hyvideo_rt.kernels.rope import rope_table
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.tiling import Tiling, stream_tiled
from hyvideo_rt.models.vae import CausalVAE, lay_out
from hyvideo_rt.pipeline import Precision
from hyvideo_rt.plan import GIB, OVERHEAD, make_plan
from hyvideo_rt.video import to_uint8

GPU = torch.device("cuda")
MODEL = MODELS["HYVideo-T/2-cfgdistill"]
WARM_UP = Bucket(256, 256, 17)
PROMPT_TOKENS = 351  # the longest prompt and its template


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["544x960x129", "720x1280x129"])
    parser.add_argument("--stages", nargs="+", default=["encode", "denoise", "decode"])
    parser.add_argument("--kernels", choices=["reference", "triton"], default="triton")
    parser.add_argument("--attention", choices=list(BACKENDS), default="sdpa")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    table = REFERENCE
    if args.kernels == "triton":
        from hyvideo_rt.kernels.triton_ops import triton_ops  # others import this module without Triton

        table = triton_ops(args.attention, BACKENDS[args.attention].load())
    buckets = [Bucket.parse(size) for size in args.sizes]
    stages = {"encode": encode_stage, "denoise": denoise_stage, "decode": decode_stage}
    workload = Workload("random", args.sizes, 1, str(Precision.default(GPU)), [f"eager, {table.name}"])
    limit = limits.measure(GPU)
    result: dict[str, Any] = {
        "conditions": conditions(GPU, workload),
        "kernels": table.name,
        "limits": asdict(limit),
        "rows": [],
    }
    for stage in args.stages:
        with stages[stage](MODEL, Precision.default(GPU), table) as run:
            for bucket in buckets:
                row = measure(stage, bucket, run, args.runs, limit)
                result["rows"].append(row)
                print(row, f"planned {planned_gib(stage, bucket):.3f} GiB", flush=True)
                if args.out:
                    args.out.write_text(json.dumps(result, indent=2) + "\n")
        del run  # or its network stays while the next one is made
        give_back(GPU)


def planned_gib(stage: str, bucket: Bucket) -> float:
    """What the plan adds for a stage's activations."""
    plan = make_plan(MODEL, bucket, Precision.default(GPU), GPU)
    return (plan.stages[stage] - sum(plan.weights.values()) - OVERHEAD) / GIB


def measure(
    stage: str, bucket: Bucket, run: Callable[[Bucket], None], runs: int, limit: limits.Limits
) -> dict[str, object]:
    """seconds is the median; activations are the peak above what lay on the device before."""
    run(WARM_UP)
    watch = Watch(GPU)
    timing = Timing.of([timed(lambda: run(bucket), GPU)[0] for _ in range(runs)])
    reserved, peak = torch.cuda.max_memory_reserved(), watch.memory().device_peak_bytes
    assert peak is not None, "footprint is of a GPU"
    precision = Precision.default(GPU)
    dtype = {"encode": precision.llm, "denoise": precision.dit, "decode": precision.vae}[stage]
    least_s = limit.least_s(flops_of(stage, bucket), dtype)
    return {
        "stage": stage,
        "bucket": str(bucket),
        "seconds": round(timing.median_s, 4),
        "p20_s": round(timing.p20_s, 4),
        "p80_s": round(timing.p80_s, 4),
        "runs": timing.runs,
        "least_s": least_s,
        "share_of_limit": round(least_s / timing.median_s, 4),
        "activations_gib": round(peak / GIB, 3),
        "reserved_gib": round(reserved / GIB, 3),
    }


def flops_of(stage: str, bucket: Bucket) -> work.Flops:
    if stage == "encode":
        return work.Flops(work.encode_flops(MODEL, PROMPT_TOKENS))
    if stage == "decode":
        return work.Flops(work.decode_flops(MODEL, bucket))
    return work.step_parts(MODEL, bucket, TEXT_TOKENS["cuda"])


@contextmanager
def encode_stage(config: ModelConfig, precision: Precision, ops: Ops) -> Iterator[Callable[[Bucket], None]]:
    llm = random_module(lambda: LlamaEncoder(config.llm), precision.llm, GPU)
    ids = torch.randint(0, config.llm.vocab_size, (1, PROMPT_TOKENS), device=GPU)

    @torch.inference_mode()
    def run(bucket: Bucket) -> None:
        llm(ids)

    yield run


@contextmanager
def denoise_stage(config: ModelConfig, precision: Precision, ops: Ops) -> Iterator[Callable[[Bucket], None]]:
    dit = random_module(lambda: HunyuanVideoDiT(config.dit, ops), precision.dit, GPU)
    text = torch.randn(1, 256, config.dit.text_dim, device=GPU, dtype=precision.dit)
    pooled = torch.randn(1, config.dit.pooled_dim, device=GPU, dtype=precision.dit)
    t, guidance = torch.tensor([700.0], device=GPU), torch.tensor([6016.0], device=GPU)

    @torch.inference_mode()
    def run(bucket: Bucket) -> None:
        cos, sin = rope_table(bucket.grid, config.dit.rope_dims, config.dit.rope_theta)
        latents = torch.randn(1, 16, *bucket.latent_shape, device=GPU)
        velocity = dit(latents, dit.condition(t, text, pooled, guidance), (cos.to(GPU), sin.to(GPU)))
        assert velocity.isfinite().all()

    yield run


@contextmanager
def decode_stage(config: ModelConfig, precision: Precision, ops: Ops) -> Iterator[Callable[[Bucket], None]]:
    vae = lay_out(random_module(lambda: CausalVAE(config.vae, ops), precision.vae, GPU))

    @torch.inference_mode()
    def run(bucket: Bucket) -> None:
        z = torch.randn(1, 16, *bucket.latent_shape, device=GPU, dtype=precision.vae)
        for chunk in stream_tiled(vae.decode, z, Tiling.decode(config.vae)):
            picture: Tensor = (chunk.float() / 2 + 0.5).clamp(0, 1)
            to_uint8(picture[0]).cpu()

    yield run


if __name__ == "__main__":
    main()
