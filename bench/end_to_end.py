"""One video, stage by stage, against diffusers on the same weights: `python -m hyvideo_rt.bench.end_to_end`.

Same folder, steps, size, tiles and noise, one process, turn by turn: ours eager and from engines, diffusers
eager and compiled; a peer that does not run has its reason instead. Ratios are of medians, with the interval
of a bootstrap. Memory is what a contestant adds to a process that has imported all: at a stage's peak,
and what it keeps.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.memory import Memory, Watch
from hyvideo_rt.bench.networks import from_store
from hyvideo_rt.bench.peers import import_libraries, load_peer, peer_arguments, peer_video
from hyvideo_rt.bench.rungs import Row, reason_of
from hyvideo_rt.bench.timing import Ratio, Timing, race
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.config import MODELS
from hyvideo_rt.pipeline import Pipeline, Precision
from hyvideo_rt.sampling import SamplingParams, denoise, initial_noise, make_sigmas
from hyvideo_rt.video import save_mp4

PROMPT = "a red circle moves right on a white background"
STAGES = ("encode", "denoise", "decode", "video", "write")
CPU = torch.device("cpu")
FOLDER = Path(str(files("hyvideo_rt") / "tiny_model"))
PEERS = ("diffusers", "diffusers_compiled")
Stages = dict[str, Callable[[], object]]
Contestant = tuple[Callable[[], Any], Callable[[Any], Stages]]  # how it is made, and its stages


@dataclass(frozen=True)
class Entered:
    """made is a pipeline, ours or a peer's; memory is by stage."""

    made: Any
    stages: Stages
    memory: dict[str, Memory]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="64x64x17")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--only-eager", action="store_true", help="without compiling anything")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    params = SamplingParams(Bucket.parse(args.size), seed=0, num_inference_steps=args.steps)

    def keep(result: Row) -> None:
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=2) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        measure(params, args.runs, Path(folder), keep, only_eager=args.only_eager)


def measure(
    params: SamplingParams, runs: int, folder: Path, keep: Callable[[Row], None], *, only_eager: bool
) -> Row:
    """keep gets the result after every stage."""
    backends = ["eager"] if only_eager else ["eager", "inductor"]
    limit, size, steps = limits.measure(CPU), str(params.bucket), params.num_inference_steps
    workload = Workload("tiny", [size], steps, str(Precision.default(CPU)), backends)
    import_libraries(CPU)
    entered, reasons = enter_all(contestants(params, folder, only_eager=only_eager))
    ours = {name: each.made for name, each in entered.items() if name not in PEERS}
    text = ours["hyvideo_rt"].encode(PROMPT, params)[0]
    differences = [
        max_difference(each, entered["diffusers"].made, params)
        for each in ours.values()
        if "diffusers" in entered
    ]
    result: Row = {
        "conditions": conditions(CPU, workload),
        "ours": {name: pipeline.identity for name, pipeline in ours.items()},
        "limits": asdict(limit),
        "flops": work.request_flops(MODELS["tiny"], text, params),
        "max_video_difference": max(differences, default=None),
        "reasons": reasons,
        "stages": {},
    }
    for stage in STAGES:
        calls = {name: each.stages[stage] for name, each in entered.items() if stage in each.stages}
        rounds = race(calls, runs, warm_up=2)
        print(line(stage, rounds), flush=True)
        result["stages"][stage] = {
            name: asdict(Timing.of(seconds)) | asdict(entered[name].memory[stage])
            for name, seconds in rounds.items()
        } | {"ratios": {name: asdict(each) for name, each in ratios(rounds).items()}}
        keep(result)
    return result


def contestants(params: SamplingParams, folder: Path, *, only_eager: bool) -> dict[str, Contestant]:
    ours, theirs = partial(our_stages, params=params, folder=folder), partial(peer_stages, params=params)
    found: dict[str, Contestant] = {
        "hyvideo_rt": (lambda: Pipeline.load(embedded_tiny(), CPU), ours),
        "diffusers": (lambda: load_peer(FOLDER), theirs),
    }
    if not only_eager:
        found["engines"] = (lambda: with_engines(params.bucket), ours)
        found["diffusers_compiled"] = (lambda: load_peer(FOLDER, compiled=True), theirs)
    return found


def enter_all(contestants: Mapping[str, Contestant]) -> tuple[dict[str, Entered], dict[str, str]]:
    """Those that run, and of a peer that does not the reason; ours has to run."""
    entered, reasons = dict[str, Entered](), dict[str, str]()
    for name, (make, stages_of) in contestants.items():
        try:
            entered[name] = enter(make, stages_of)
        except Exception as error:
            if name not in PEERS:
                raise
            reasons[name] = reason_of(error)
    return entered, reasons


def enter(make: Callable[[], Any], stages_of: Callable[[Any], Stages]) -> Entered:
    """Made, and each stage called once to compile and once to see its memory."""
    watch, memory = Watch(CPU), dict[str, Memory]()
    made = make()
    stages = stages_of(made)
    for stage, run in stages.items():
        run()
        watch.forget_peaks()
        run()
        memory[stage] = watch.memory()
    return Entered(made, stages, memory)


def with_engines(bucket: Bucket) -> Pipeline:
    """Ours, from engines of Inductor that are built for the purpose."""
    checkpoint = embedded_tiny()
    with tempfile.TemporaryDirectory() as folder:
        make = from_store(checkpoint.config, bucket, Path(folder))
    return Pipeline.load(checkpoint, CPU, engines=make)


def our_stages(pipeline: Pipeline, params: SamplingParams, folder: Path) -> Stages:
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

    video = pipeline.generate(PROMPT, params)

    def run_write() -> None:
        save_mp4(video, folder / "video.mp4")

    return dict(zip(STAGES, (run_encode, run_denoise, run_decode, run_video, run_write), strict=True))


def peer_stages(pipe: Any, params: SamplingParams) -> Stages:
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

    return {"encode": run_encode, "denoise": latents_of, "decode": run_decode, "video": run_video}


@torch.inference_mode()
def max_difference(ours: Pipeline, peer: Any, params: SamplingParams) -> float:
    """Of the decoded videos in 0..1: a comparison of speed is worth nothing without it."""
    sigmas = make_sigmas(params)
    text, negative = ours.encode(PROMPT, params)
    predict = ours.predictor(text, negative, params, sigmas)
    latents = denoise(predict, initial_noise(params.bucket, params.seed), sigmas)
    video = torch.cat(list(ours.decode(latents)), dim=2)
    return float((video - peer_video(peer, PROMPT, params)).abs().max())


def ratios(rounds: dict[str, list[float]]) -> dict[str, Ratio]:
    """The peer's time over ours, eager against eager and compiled against compiled: above 1 we are faster."""
    pairs = {"eager": ("diffusers", "hyvideo_rt"), "compiled": ("diffusers_compiled", "engines")}
    return {
        name: Ratio.of(rounds[peer], rounds[ours])
        for name, (peer, ours) in pairs.items()
        if peer in rounds and ours in rounds
    }


def line(stage: str, rounds: dict[str, list[float]]) -> str:
    times = [f"{name} {1e3 * Timing.of(seconds).median_s:.1f} ms" for name, seconds in rounds.items()]
    return f"{stage}: {', '.join(times + [f'{name} {each}' for name, each in ratios(rounds).items()])}"


if __name__ == "__main__":
    main()
