"""One video, stage by stage, against diffusers on the same weights: `python -m hyvideo_rt.bench.end_to_end`.

Same folder, steps, size, tiles and noise, one process, turn by turn; a table and JSON. The ratio is
diffusers' median over ours: above 1 we are faster.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.bench.conditions import conditions
from hyvideo_rt.bench.diffusers_peer import load_peer, peer_arguments, peer_video
from hyvideo_rt.bench.timing import Timing, interleave
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import SamplingParams, denoise, initial_noise, make_sigmas
from hyvideo_rt.weights.checkpoint import Checkpoint

PROMPT = "a red circle moves right on a white background"
STAGES = ("encode", "denoise", "decode", "video")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="64x64x17")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    folder = Path(str(files("hyvideo_rt") / "tiny_model"))
    params = SamplingParams(Bucket.parse(args.size), seed=0, num_inference_steps=args.steps)
    ours = Pipeline.load(Checkpoint.open(folder), torch.device("cpu"))
    peer = load_peer(folder)
    difference = max_difference(ours, peer, params)
    pairs = zip(our_stages(ours, params).items(), peer_stages(peer, params).values(), strict=True)
    rows = {
        stage: interleave({"hyvideo_rt": run, "diffusers": peer_run}, args.runs)
        for (stage, run), peer_run in pairs
    }
    print(f"largest difference of the decoded video: {difference:.1e}")
    print(table(rows))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report(rows, params, difference), indent=2) + "\n")


def our_stages(pipeline: Pipeline, params: SamplingParams) -> dict[str, Callable[[], object]]:
    """Every stage on its own; `encode` forgets the prompt first."""
    sigmas = make_sigmas(params)
    noise = initial_noise(params.bucket, params.seed)
    with torch.inference_mode():
        text, _ = pipeline.encode(PROMPT, params)
        latents = denoise(pipeline.predictor(text, None, params, sigmas), noise, sigmas)

    @torch.inference_mode()
    def run_encode() -> object:
        pipeline.forget_prompts()
        return pipeline.encode(PROMPT, params)

    @torch.inference_mode()
    def run_denoise() -> object:
        return denoise(pipeline.predictor(text, None, params, sigmas), noise, sigmas)

    @torch.inference_mode()
    def run_decode() -> object:
        return list(pipeline.decode(latents))

    def run_video() -> object:
        pipeline.forget_prompts()
        return pipeline.generate(PROMPT, params)

    return dict(zip(STAGES, (run_encode, run_denoise, run_decode, run_video), strict=True))


def peer_stages(pipe: Any, params: SamplingParams) -> dict[str, Callable[[], object]]:
    arguments = peer_arguments(params)
    with torch.no_grad():
        states, pooled, mask = pipe.encode_prompt(prompt=PROMPT)
    texts = {"prompt_embeds": states, "pooled_prompt_embeds": pooled, "prompt_attention_mask": mask}

    def latents_of() -> Tensor:
        latents: Tensor = pipe(**texts, **arguments, output_type="latent").frames
        return latents

    latents = latents_of() / pipe.vae.config.scaling_factor

    @torch.no_grad()
    def run_encode() -> object:
        return pipe.encode_prompt(prompt=PROMPT)

    @torch.no_grad()
    def run_decode() -> object:
        return pipe.video_processor.postprocess_video(pipe.vae.decode(latents).sample, output_type="pt")

    def run_video() -> object:
        return pipe(prompt=PROMPT, **arguments, output_type="np")

    return dict(zip(STAGES, (run_encode, latents_of, run_decode, run_video), strict=True))


@torch.inference_mode()
def max_difference(ours: Pipeline, peer: Any, params: SamplingParams) -> float:
    """Of the decoded videos in 0..1: a comparison of speed is worth nothing without it."""
    sigmas = make_sigmas(params)
    text, negative = ours.encode(PROMPT, params)
    predict = ours.predictor(text, negative, params, sigmas)
    latents = denoise(predict, initial_noise(params.bucket, params.seed), sigmas)
    video = torch.cat(list(ours.decode(latents)), dim=2)
    return float((video - peer_video(peer, PROMPT, params)).abs().max())


def ratio(pair: dict[str, Timing]) -> float:
    return pair["diffusers"].median_s / pair["hyvideo_rt"].median_s


def table(rows: dict[str, dict[str, Timing]]) -> str:
    lines = [f"{'stage':8} {'hyvideo-rt ms':>22} {'diffusers ms':>22} {'ratio':>6}"]
    for stage, pair in rows.items():
        cells = (
            f"{1e3 * t.median_s:8.1f} ({1e3 * t.p20_s:.1f}-{1e3 * t.p80_s:.1f})"
            for t in (pair["hyvideo_rt"], pair["diffusers"])
        )
        ours, theirs = cells
        lines.append(f"{stage:8} {ours:>22} {theirs:>22} {ratio(pair):6.2f}")
    return "\n".join(lines)


def report(
    rows: dict[str, dict[str, Timing]], params: SamplingParams, difference: float
) -> dict[str, object]:
    return {
        "conditions": conditions(torch.device("cpu"), weights="tiny"),
        "bucket": str(params.bucket),
        "steps": params.num_inference_steps,
        "max_video_difference": difference,
        "stages": {
            stage: {name: asdict(timing) for name, timing in pair.items()} | {"ratio": round(ratio(pair), 3)}
            for stage, pair in rows.items()
        },
    }


if __name__ == "__main__":
    main()
