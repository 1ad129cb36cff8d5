"""One denoising step and one VAE decode, optimisation by optimisation: `python -m hyvideo_rt.bench.steps`.

The rungs of a ladder: diffusers and xDiT, our networks with the plain operators, then with one thing added at
a time. All have the same weights and inputs, in one process, turn by turn. A rung that cannot run has its
reason instead. On a CPU the embedded model; on a GPU the published one with random weights. A lossy rung
names the setting of `bench.quality` that tells what it does to videos.
"""

import argparse
import functools
import itertools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.memory import device_peak
from hyvideo_rt.bench.networks import (
    TEXT_TOKENS,
    Networks,
    built,
    dit_in_8_bits,
    dit_with,
    embedded,
    published,
    step,
    step_inputs,
    vae_with,
    weights_in_8_bits,
)
from hyvideo_rt.bench.peers import diffusers_decode, diffusers_step, xdit_step
from hyvideo_rt.bench.timing import Ratio, Timing, race
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import target_for
from hyvideo_rt.engine_set import EngineSet
from hyvideo_rt.engines.spec import BackendName
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.kernels.attention_backends import BACKENDS
from hyvideo_rt.kernels.fp8 import E4M3
from hyvideo_rt.kernels.ops import REFERENCE, Ops
from hyvideo_rt.models.tiling import Tiling, run_tiled
from hyvideo_rt.pipeline import Precision
from hyvideo_rt.weights.checkpoint import empty_dit

SIZES = {"cpu": ("64x64x17", "64x96x17", "64x64x33"), "cuda": ("544x960x129", "720x1280x129")}
OURS = "hyvideo_rt"  # the rung with plain operators; those after it add to it
Run = Callable[[], Tensor]
Row = dict[str, Any]


@dataclass(frozen=True)
class Rung:
    """dtype is that of its products; quality, of a lossy one, with fewer bits than the ladder's default, the
    setting of `bench.quality` that tells what this does to videos: "fp32" tells it of bf16.

    make loads and compiles; what it raises is the reason why this rung did not run.
    """

    name: str
    make: Callable[[], Run]
    dtype: torch.dtype
    quality: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+")
    parser.add_argument("--stages", nargs="+", choices=["denoise", "decode"], default=["denoise", "decode"])
    parser.add_argument("--rungs", nargs="+", metavar="NAME", help="only these (all)")
    parser.add_argument("--attention", default="fa3", help="lossless, of the rungs that choose one (fa3)")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = embedded() if device.type == "cpu" else published()
    sizes = args.sizes or SIZES[device.type]
    workload = Workload(
        networks.weights,
        sizes,
        1,
        f"{Precision.default(device)}; each rung's products in its dtype",
        ["eager", "inductor", "openvino"],
    )
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
            rungs = ladder(stage, networks, bucket, args.attention, Path(folder))
            climb(
                chosen(rungs, args.rungs), flops_of(stage, networks, bucket), limit, device, args.runs, keep
            )
        for row in result["rows"][len(done) :]:
            print(json.dumps(row), flush=True)


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


def climb(
    rungs: Sequence[Rung],
    flops: int,
    limit: limits.Limits,
    device: torch.device,
    runs: int,
    keep: Callable[[list[Row]], None],
) -> None:
    """A row per rung: seconds, TF/s and its share of the limit, the first rung's time over its own.

    Each is called once before the race: it compiles there, its peak of memory is measured, and its result
    compared with the first one's, as |difference| / |first|, Euclidean. keep gets the rows after every round.
    """
    ready: dict[str, Run] = {}
    extra: dict[str, Row] = {}
    first: Tensor | None = None
    for rung in rungs:
        try:
            run = rung.make()
            out, peak = device_peak(run, device)
        except Exception as error:
            extra[rung.name] = {"reason": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
            continue
        ready[rung.name] = run
        first = out.cpu() if first is None else first
        extra[rung.name] = {"activation_bytes": peak, "difference": relative_difference(out.cpu(), first)}

    def rows(rounds: Mapping[str, list[float]]) -> None:
        keep([row_of(rung, rounds, flops, limit) | extra[rung.name] for rung in rungs])

    race(ready, runs, warm_up=1 if runs > 3 else 0, device=device, after_round=rows)


def relative_difference(out: Tensor, first: Tensor) -> float:
    return float(f"{((out.float() - first.float()).norm() / first.float().norm()).item():.3g}")


def row_of(rung: Rung, rounds: Mapping[str, Sequence[float]], flops: int, limit: limits.Limits) -> Row:
    row: Row = {"rung": rung.name, "quality": rung.quality, "dtype": limits.name_of(rung.dtype)}
    if rung.name not in rounds:
        return row
    seconds = list(rounds[rung.name])
    timing = Timing.of(seconds)
    row |= asdict(timing) | {
        "tf_s": float(f"{flops / timing.median_s / 1e12:.4g}"),
        "share": round(limit.share(flops, timing.median_s, rung.dtype), 4),
    }
    first = next(iter(rounds))
    if first != rung.name and len(seconds) > 1:
        row["ratio"] = asdict(Ratio.of(rounds[first], seconds)) | {"of": first}
    return row


def flops_of(stage: str, networks: Networks, bucket: Bucket) -> int:
    if stage == "decode":
        return work.decode_flops(networks.config, bucket)
    return work.step_flops(networks.config, bucket, TEXT_TOKENS[networks.device.type])


def ladder(stage: str, networks: Networks, bucket: Bucket, attention: str, folder: Path) -> list[Rung]:
    make = denoise_ladder if stage == "denoise" else decode_ladder
    return make(networks, bucket, attention, folder)


def denoise_ladder(networks: Networks, bucket: Bucket, attention: str, folder: Path) -> list[Rung]:
    """On a CPU its lossy rung is bf16, which is the default of a GPU."""
    inputs, dtype = functools.cache(lambda: step_inputs(networks, bucket)), networks.dtype

    def with_ops(ops: Callable[[], Ops]) -> Run:
        return step(dit_with(networks, ops()), inputs())

    def from_engines(backend: BackendName, attention: str = "sdpa", half: bool = False) -> Run:
        used = in_bf16(networks) if half else networks
        engines = engine_set(used, bucket, backend, attention, folder)
        return step(used.dit, inputs(), engines.blocks(bucket))

    rungs = [
        Rung("diffusers", lambda: diffusers_step(networks, inputs()), dtype),
        Rung("diffusers, compiled", lambda: diffusers_step(networks, inputs(), compiled=True), dtype),
        Rung("xDiT", lambda: xdit_step(networks, inputs()), dtype),
        Rung(OURS, lambda: with_ops(lambda: REFERENCE), dtype),
    ]
    if networks.device.type == "cpu":
        return [
            *rungs,
            Rung("engines of inductor", lambda: from_engines("inductor"), dtype),
            Rung("engines of openvino", lambda: from_engines("openvino"), dtype),
            Rung("engines in bf16", lambda: from_engines("inductor", half=True), torch.bfloat16, "fp32"),
        ]

    narrow = functools.cache(lambda: weights_in_8_bits(networks))  # 13 GB: once

    def in_8_bits(attention: str) -> Run:
        return step(dit_in_8_bits(networks, narrow(), triton(attention)), inputs())

    return [
        *rungs,
        Rung("Triton kernels", lambda: with_ops(lambda: triton("sdpa")), dtype),
        Rung(f"{attention} attention", lambda: with_ops(lambda: triton(attention)), dtype),
        Rung("engines of inductor", lambda: from_engines("inductor", attention), dtype),
        Rung("fp8 products", lambda: in_8_bits(attention), E4M3, "8-bit products"),
        Rung("fp8 attention", lambda: in_8_bits("fa3-fp8"), E4M3, "8-bit products and attention"),
    ]


def decode_ladder(networks: Networks, bucket: Bucket, attention: str, folder: Path) -> list[Rung]:
    """From latents to pictures, by the original's tiles."""
    del attention  # the VAE's own is computed by torch
    dtype = networks.vae.post_quant_conv.weight.dtype
    generator = torch.Generator(networks.device).manual_seed(0)
    shape = (1, networks.config.vae.latent_channels, *bucket.latent_shape)
    z = torch.randn(shape, generator=generator, device=networks.device).to(dtype)
    tiling = Tiling.decode(networks.config.vae)

    def ours(decode: Callable[[Tensor], Tensor]) -> Run:
        return torch.inference_mode()(lambda: run_tiled(decode, z, tiling))

    def from_engines(backend: BackendName) -> Run:
        return ours(engine_set(networks, bucket, backend, "sdpa", folder).decode)

    rungs = [
        Rung("diffusers", lambda: diffusers_decode(networks, z), dtype),
        Rung("diffusers, compiled", lambda: diffusers_decode(networks, z, compiled=True), dtype),
        Rung(OURS, lambda: ours(networks.vae.decode), dtype),
    ]
    if networks.device.type == "cuda":
        rungs.append(Rung("Triton kernels", lambda: ours(vae_with(networks, triton("sdpa")).decode), dtype))
    rungs.append(Rung("engines of inductor", lambda: from_engines("inductor"), dtype))
    if networks.device.type == "cpu":
        rungs.append(Rung("engines of openvino", lambda: from_engines("openvino"), dtype))
    return rungs


def triton(attention: str) -> Ops:
    from hyvideo_rt.kernels.triton_ops import triton_ops  # a CPU need not have it

    return triton_ops(attention, BACKENDS[attention].load())


def in_bf16(networks: Networks) -> Networks:
    """A copy of the DiT in half the bits."""
    dit = empty_dit(networks.config.dit, REFERENCE, fp8=False)
    dit.load_state_dict({k: v.bfloat16() for k, v in networks.dit.state_dict().items()}, assign=True)
    return Networks(networks.config, dit.eval(), networks.vae, networks.device)


def engine_set(
    networks: Networks, bucket: Bucket, backend: BackendName, attention: str, folder: Path
) -> EngineSet:
    precision = Precision.default(networks.device)
    precision = Precision(networks.dtype, precision.vae, precision.llm, precision.clip)
    target = target_for(backend, precision, networks.device, attention)
    shared = Networks(
        networks.config, dit_with(networks, REFERENCE), vae_with(networks, REFERENCE), networks.device
    )
    make = built(networks.config, bucket, target, networks.device, folder)
    return make(shared.dit, shared.vae)


if __name__ == "__main__":
    main()
