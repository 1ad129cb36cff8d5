"""Does the model make what was asked for? The judge's scores of held-out prompts, and the VAE's PSNR.

`python -m tiny.evaluate --prompts 200 --out scores.json` goes through hyvideo_rt's own pipeline: half of the
prompts are plain, half vary; default size, steps and guidance; every video has its own seed. The first
quarter is made once more at guidance 1, which is what the embedded guidance improves on.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.config import MODELS, sampling_defaults
from hyvideo_rt.errors import NumericalError
from hyvideo_rt.pipeline import Pipeline, Precision, pick_device
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.weights.checkpoint import Checkpoint
from tiny.captions import canonical, caption
from tiny.judge import judge, score
from tiny.latents import SIZES
from tiny.render import render_batch
from tiny.scores import PROPERTIES
from tiny.train_vae import psnr
from tiny.world import Scene, sample_scene


@dataclass(frozen=True)
class Judged:
    prompt: str
    scene: Scene
    plain: bool
    right: Mapping[str, bool]
    seconds: float


def prompts(count: int, seed: int) -> list[tuple[str, Scene, bool]]:
    """Prompt, scene and whether the prompt is plain: held-out scenes, every other prompt varied."""
    rng = Random(f"evaluation {seed}")
    scenes = [sample_scene(rng, "heldout") for _ in range(count)]
    return [
        (caption(scene, rng) if i % 2 else canonical(scene), scene, i % 2 == 0)
        for i, scene in enumerate(scenes)
    ]


def judge_prompts(
    pipeline: Pipeline, asked: Sequence[tuple[str, Scene, bool]], seed: int, **options: Any
) -> list[Judged]:
    """`asked` as `prompts` makes it; options of SamplingParams."""
    bucket, steps = sampling_defaults(MODELS["tiny"])
    params = SamplingParams(bucket, seed, num_inference_steps=steps, **options)
    return [
        judge_prompt(pipeline, prompt, scene, plain, replace(params, seed=seed + i))
        for i, (prompt, scene, plain) in enumerate(asked)
    ]


def judge_prompt(
    pipeline: Pipeline, prompt: str, scene: Scene, plain: bool, params: SamplingParams
) -> Judged:
    start = time.perf_counter()
    try:
        frames = pipeline.generate(prompt, params).frames
    except NumericalError:  # a flat picture: no video, so nothing is right
        return Judged(prompt, scene, plain, dict.fromkeys(PROPERTIES, False), time.perf_counter() - start)
    seconds = time.perf_counter() - start
    return Judged(prompt, scene, plain, score(judge(frames), scene), seconds)


def shares(judged: Sequence[Judged]) -> dict[str, float]:
    """Of the videos, how many are right in each property."""
    count = max(1, len(judged))
    found = {name: sum(each.right[name] for each in judged) / count for name in PROPERTIES}
    return {"videos": len(judged)} | found


def vae_psnr(pipeline: Pipeline, clips: int, seed: int) -> dict[str, float]:
    """Mean over held-out clips of each size, in dB; the first size is the default one."""
    rng = Random(f"psnr {seed}")
    dtype = pipeline.vae.post_quant_conv.weight.dtype
    result = {}
    for size in SIZES:
        values = []
        for _ in range(clips):
            video = render_batch([sample_scene(rng, "heldout")], *size, pipeline.device)
            values.append(psnr(pipeline.vae, video.to(dtype)))
        result[str(Bucket(*size))] = round(float(torch.cat(values).mean()), 2)
    return result


def evaluate(pipeline: Pipeline, num_prompts: int, num_clips: int, seed: int = 0) -> dict[str, Any]:
    asked = prompts(num_prompts, seed)
    judged = judge_prompts(pipeline, asked, seed)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    unguided = judge_prompts(pipeline, asked[: max(1, num_prompts // 4)], seed, guidance_scale=1.0)
    groups = {
        "all prompts": judged,
        "plain prompts": [each for each in judged if each.plain],
        "varied prompts": [each for each in judged if not each.plain],
        "one thing": [each for each in judged if len(each.scene.things) == 1],
        "two things": [each for each in judged if len(each.scene.things) == 2],
        "the first quarter": judged[: len(unguided)],
        "the same at guidance 1": unguided,
    }
    bucket, steps = sampling_defaults(MODELS["tiny"])
    workload = Workload("tiny", [str(bucket)], steps, str(Precision.default(pipeline.device)), ["eager"])
    return {
        **{name: shares(group) for name, group in groups.items()},
        "psnr_db": vae_psnr(pipeline, num_clips, seed),
        "median_seconds": round(statistics.median(each.seconds for each in judged), 3),
        "peak_memory_gb": round(peak_bytes / 1e9, 2),  # of the whole process, before the PSNR
        "wrong": [
            {"prompt": each.prompt, "wrong": [name for name in PROPERTIES if not each.right[name]]}
            for each in judged
            if not each.right["all"]
        ],
        **pipeline.identity,
        "conditions": conditions(pipeline.device, workload),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--clips", type=int, default=64, help="for the PSNR, of each size (default 64)")
    parser.add_argument("--model", type=Path, help="a model's folder; the embedded one if left out")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the result to this JSON file")
    args = parser.parse_args()
    checkpoint = Checkpoint.open(args.model) if args.model else embedded_tiny()
    pipeline = Pipeline.load(checkpoint, pick_device(args.device))
    result = evaluate(pipeline, args.prompts, args.clips, args.seed)
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
