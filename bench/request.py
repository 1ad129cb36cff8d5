"""One whole request on a timeline: `python -m hyvideo_rt.bench.request [--size 544x960x129] [--out F]`.

When every step and every tile ended, what each stage attains of the device's limit, and memory: above what
lay there before the networks were loaded, at the request's peak and after it. On a CPU the embedded model
and a warm second request; on a GPU the published networks with random weights, where minutes forbid more than
one: its first step is the cold one, and what has ended is written step by step.
"""

import argparse
import functools
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.memory import Watch
from hyvideo_rt.bench.networks import PUBLISHED, random_module
from hyvideo_rt.bench.rungs import Row, reason_of
from hyvideo_rt.bench.timing import Timing
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.config import MODELS
from hyvideo_rt.errors import NumericalError
from hyvideo_rt.kernels.attention_backends import BACKENDS
from hyvideo_rt.models.clip import ClipTextEncoder
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.tokenizers import ClipTokenizer, LlmTokenizer
from hyvideo_rt.models.vae import CausalVAE, lay_out
from hyvideo_rt.pipeline import Pipeline, Precision
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.text import TextEncoder
from hyvideo_rt.video import save_mp4

PROMPT = "a red circle moves right on a white background"
DEFAULTS = {"cpu": ("64x64x17", 20), "cuda": ("544x960x129", 50)}
Moment = dict[str, Any]  # stage, done, of, at_s


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--attention", choices=list(BACKENDS), default="sdpa", help="on a GPU (sdpa)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size, steps = DEFAULTS[device.type]
    params = SamplingParams(Bucket.parse(args.size or size), seed=0, num_inference_steps=args.steps or steps)
    load = functools.partial(published, args.attention) if device.type == "cuda" else tiny

    def keep(result: Row) -> None:
        if args.out:
            args.out.write_text(json.dumps(result, indent=2) + "\n")

    result = measure(load, params, device, keep)
    print(json.dumps({name: value for name, value in result.items() if name != "timeline"}, indent=2))


def measure(
    load: Callable[[], Pipeline], params: SamplingParams, device: torch.device, keep: Callable[[Row], None]
) -> Row:
    """keep gets the result so far after every part on a GPU, and the complete one."""
    weights, precision = "random" if device.type == "cuda" else "tiny", str(Precision.default(device))
    workload = Workload(weights, [str(params.bucket)], params.num_inference_steps, precision, ["eager"])
    limit = limits.measure(device)
    found: Row = {"conditions": conditions(device, workload), "limits": asdict(limit)}
    watch = Watch(device)
    pipeline = load()
    watch.forget_peaks()  # not just before what is timed: it gives back what a warm process has at hand
    if device.type == "cpu":
        request(pipeline, params)
        pipeline.forget_prompts()
    found["ours"] = pipeline.identity

    def so_far(moments: list[Moment]) -> None:
        if device.type == "cuda":
            keep(found | summary(moments, pipeline, params, limit) | {"complete": False})

    moments = request(pipeline, params, so_far)
    found |= summary(moments, pipeline, params, limit) | asdict(watch.memory()) | {"complete": True}
    keep(found)
    return found


def summary(moments: list[Moment], pipeline: Pipeline, params: SamplingParams, limit: limits.Limits) -> Row:
    """Seconds of each stage so far; of stages that have ended, shares of a large product's rate."""
    dtypes = {"encode": pipeline.text_encoder.llm, "denoise": pipeline.dit, "decode": pipeline.vae}
    ended = {moment["stage"] for moment in moments if moment["done"] == moment["of"]}
    seconds, steps = stage_seconds(moments), step_seconds(moments)
    flops = flops_of(pipeline, params) if "encode" in ended else {}
    return {
        "seconds": seconds,
        "shares": {
            stage: limit.share(flops[stage], seconds[stage], next(network.parameters()).dtype)
            for stage, network in dtypes.items()
            if stage in ended
        },
        "first_step_s": steps[0] if steps else None,
        "step": asdict(Timing.of(steps[1:])) if steps[1:] else None,
        "timeline": moments,
    }


def request(
    pipeline: Pipeline, params: SamplingParams, keep: Callable[[list[Moment]], None] = lambda moments: None
) -> list[Moment]:
    """When each stage began (done 0) and each of its parts ended, in seconds; the file included.

    keep gets them after each; the clock stands still meanwhile. Where no file can be made there is the
    reason: random weights may paint one flat colour, and PyAV may be missing where nothing can be downloaded.
    """
    start, moments = time.perf_counter(), list[Moment]()

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal start
        if pipeline.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        moments.append({"stage": stage, "done": done, "of": total, "at_s": round(now - start, 6)})
        keep(moments)
        start += time.perf_counter() - now

    try:
        video = pipeline.generate(PROMPT, params, progress)
        progress("write", 0, 1)
        with tempfile.TemporaryDirectory() as folder:
            save_mp4(video, Path(folder) / "video.mp4")
        progress("write", 1, 1)
    except (ImportError, NumericalError) as error:
        moments[-1]["reason"] = reason_of(error)
    return moments


def flops_of(pipeline: Pipeline, params: SamplingParams) -> dict[str, int]:
    """By the length of the prompt, which has been encoded."""
    config = MODELS["tiny" if pipeline.device.type == "cpu" else PUBLISHED]
    return work.request_flops(config, pipeline.encode(PROMPT, params)[0], params)


def stage_seconds(moments: list[Moment]) -> dict[str, float]:
    """From a stage's first moment to its last; `video` from the start to the last of all."""
    stages = dict.fromkeys(moment["stage"] for moment in moments)
    at = {stage: [m["at_s"] for m in moments if m["stage"] == stage] for stage in stages}
    return {stage: max(each) - min(each) for stage, each in at.items()} | {"video": moments[-1]["at_s"]}


def step_seconds(moments: list[Moment]) -> list[float]:
    ends = [moment["at_s"] for moment in moments if moment["stage"] == "denoise"]
    return [end - start for start, end in itertools.pairwise(ends)]


def tiny() -> Pipeline:
    return Pipeline.load(embedded_tiny(), torch.device("cpu"))


def published(attention: str) -> Pipeline:
    """All four networks at full size on the GPU; the tokenizers are the embedded model's."""
    from hyvideo_rt.kernels.triton_ops import triton_ops

    gpu, ops = torch.device("cuda"), triton_ops(attention, BACKENDS[attention].load())
    config, precision, small = MODELS[PUBLISHED], Precision.default(gpu), embedded_tiny()
    clip_tokenizer = ClipTokenizer(small.clip_tokenizer)
    clip = replace(config.clip, eos_token_id=clip_tokenizer.eos_id)
    text = TextEncoder(
        random_module(lambda: LlamaEncoder(config.llm), precision.llm, gpu),
        LlmTokenizer(small.llm_tokenizer),
        random_module(lambda: ClipTextEncoder(clip), precision.clip, gpu),
        clip_tokenizer,
    )
    dit = random_module(lambda: HunyuanVideoDiT(config.dit, ops), precision.dit, gpu)
    vae = lay_out(random_module(lambda: CausalVAE(config.vae, ops), precision.vae, gpu))
    return Pipeline(dit, vae, text, device=gpu, identity={"kernels": ops.name, "precision": str(precision)})


if __name__ == "__main__":
    main()
