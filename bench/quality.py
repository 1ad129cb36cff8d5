"""What a lossy setting does to the embedded model's videos: `python -m hyvideo_rt.bench.quality [--out F]`.

Held-out prompts, the same seeds, once in bf16 and once in every setting: latents and pictures beside those of
bf16, and the judge's verdicts on both, whose difference has an interval, because a sample of prompts is only
a sample. On a GPU by its own kernels; on a CPU by references of the same arithmetic. A setting that this GPU
cannot run has its reason. fp32 is there as a yardstick: what bf16 itself costs.
Then, on fewer prompts, one kind of layer in 8 bits at a time: which of them costs most. With --calibrated
those with 8-bit weights also as `hyvideo-rt quantise` rounds them, for training prompts. With --modelopt (pip
install nvidia-modelopt) the linear layers also as that library's default for FP8 has them: one scale per
tensor, of activations too, calibrated on the same.
"""

import argparse
import json
import random
import re
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.quality_settings import CALIBRATED, PRODUCTS, SETTINGS, Setting, in_8_bits
from hyvideo_rt.bench.rungs import reason_of
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.calibration import quantise
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.export.programs import ATTENTION
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import SamplingParams, denoise, initial_noise, make_sigmas
from hyvideo_rt.weights.checkpoint import Checkpoint
from tiny.captions import caption
from tiny.latents import MAIN
from tiny.scores import score_each
from tiny.world import Scene, sample_scene

JUDGED = ("colour", "shape", "direction", "all")
STEPS = 20
CALIBRATION, UNUSED_SEED = 16, 1_000_000  # prompts, and the first's seed, which no held-out one has
NARROW = ("8-bit products", "8-bit products and attention", "8-bit weights")
RESAMPLES = 2000
IN_BLOCKS = re.compile(r"(double|single)_blocks\.(?!.*mod)")  # of which the modulations are not
EXACT = 1e-10  # mean square at which a PSNR ends: 100 dB


@dataclass(frozen=True)
class Made:
    """Of every prompt: latents [1, 16, T, H, W], pictures [1, 3, F, H, W] in 0..1, what the judge says."""

    latents: list[Tensor]
    videos: list[Tensor]
    scores: list[dict[str, bool]]


@dataclass(frozen=True)
class Points:
    """A difference of two shares, with its 95 % interval."""

    mean: float
    low: float
    high: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--each", type=int, default=50, help="prompts for one kind of layer at a time")
    parser.add_argument("--settings", nargs="*", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--calibrated", action="store_true")
    parser.add_argument("--modelopt", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    exam = Exam.of(args.prompts, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    workload = Workload("tiny", [str(Bucket(*MAIN))], STEPS, "bf16 against each setting", ["eager"])
    result: dict[str, Any] = {
        "conditions": conditions(exam.pipeline.device, workload),
        "prompts": args.prompts,
        "bf16": {name: share(exam.dense.scores, name) for name in JUDGED},
        "settings": {},
        "prompts_each": args.each,
        "psnr_db_each": {},
    }
    rows: dict[str, Callable[[], dict[str, Any]]]
    rows = {name: partial(exam.row, SETTINGS[name]) for name in args.settings}
    if args.calibrated:
        rows |= {name + CALIBRATED: partial(exam.row, SETTINGS[name], calibrated=True) for name in NARROW}
    if args.modelopt:
        rows["8-bit products by nvidia-modelopt"] = lambda: exam.against(by_modelopt(exam))
    for name, row in rows.items():
        result["settings"][name] = row()
        report(result, args.out, f"{name}: {json.dumps(result['settings'][name])}")
    for layer in (ATTENTION, *PRODUCTS) if args.each else ():
        result["psnr_db_each"][layer] = exam.psnr_of(in_8_bits(layer), args.each)
        report(result, args.out, f"{layer}: {result['psnr_db_each'][layer]} dB")


@dataclass(frozen=True)
class Exam:
    """The same prompts for every setting, and what bf16 makes of them."""

    pipeline: Pipeline
    checkpoint: Checkpoint
    scenes: list[Scene]
    asked: list[str]
    dense: Made

    @classmethod
    def of(cls, prompts: int, device: torch.device) -> "Exam":
        rng, checkpoint = Random("fp8"), embedded_tiny()
        scenes = [sample_scene(rng, "heldout") for _ in range(prompts)]
        asked = [caption(scene, rng) for scene in scenes]
        pipeline = Pipeline.load(checkpoint, device)
        dense = make(pipeline, Setting().load(checkpoint, device), asked, scenes)
        return cls(pipeline, checkpoint, scenes, asked, dense)

    def row(self, setting: Setting, *, calibrated: bool = False) -> dict[str, Any]:
        """How far and how right its videos are, or the reason why there are none."""
        device = self.pipeline.device
        if reason := setting.reason_against(device):
            return {"reason": reason}
        try:
            dit = self.calibrated(setting) if calibrated else setting.load(self.checkpoint, device)
            return self.against(dit)
        except Exception as error:
            return {"reason": reason_of(error)}

    def calibrated(self, setting: Setting) -> HunyuanVideoDiT:
        """Its weights rounded for training prompts."""
        known, _ = training_prompts()
        params = SamplingParams(Bucket(*MAIN), seed=UNUSED_SEED, num_inference_steps=STEPS)
        with tempfile.TemporaryDirectory() as folder:
            quantise(self.pipeline, known, params, Path(folder))
            return setting.load(embedded_tiny(Path(folder)), self.pipeline.device)

    def against(self, dit: HunyuanVideoDiT) -> dict[str, Any]:
        return against(make(self.pipeline, dit, self.asked, self.scenes), self.dense)

    def psnr_of(self, setting: Setting, prompts: int) -> float:
        """On the first of the prompts alone."""
        dit = setting.load(self.checkpoint, self.pipeline.device)
        made = make(self.pipeline, dit, self.asked[:prompts], self.scenes[:prompts])
        return psnr(made.videos, self.dense.videos[:prompts])


def report(result: Mapping[str, object], out: Path | None, line: str) -> None:
    print(line, flush=True)
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")


@torch.inference_mode()
def make(pipeline: Pipeline, dit: HunyuanVideoDiT, asked: Sequence[str], scenes: Sequence[Scene]) -> Made:
    """Videos of the prompts, of seeds 0, 1, ..., by this DiT between the pipeline's other networks."""
    pipeline = Pipeline(dit, pipeline.vae, pipeline.text_encoder, device=pipeline.device)
    latents, videos = [], []
    for seed, prompt in enumerate(asked):
        params = SamplingParams(Bucket(*MAIN), seed=seed, num_inference_steps=STEPS)
        latents.append(latents_of(pipeline, prompt, params))
        videos.append(torch.cat(list(pipeline.decode(latents[-1])), dim=2).cpu())
    return Made([each.cpu() for each in latents], videos, score_each(2 * torch.cat(videos) - 1, scenes))


def latents_of(pipeline: Pipeline, prompt: str, params: SamplingParams) -> Tensor:
    sigmas = make_sigmas(params)
    text, negative = pipeline.encode(prompt, params)
    predict = pipeline.predictor(text, negative, params, sigmas)
    return denoise(predict, initial_noise(params.bucket, params.seed).to(pipeline.device), sigmas)


def training_prompts() -> tuple[list[str], list[Scene]]:
    rng = Random("calibration")
    scenes = [sample_scene(rng, "train") for _ in range(CALIBRATION)]
    return [caption(scene, rng) for scene in scenes], scenes


def by_modelopt(exam: Exam) -> HunyuanVideoDiT:
    import modelopt.torch.quantization as mtq

    known, scenes = training_prompts()
    dit = Setting().load(exam.checkpoint, exam.pipeline.device)
    mtq.quantize(dit, mtq.FP8_DEFAULT_CFG, lambda dit: make(exam.pipeline, dit, known, scenes))
    mtq.disable_quantizer(dit, lambda name: not IN_BLOCKS.match(name))
    return dit


def against(made: Made, dense: Made) -> dict[str, Any]:
    """How far these videos are from the dense ones, and how much more or less often they are right."""
    errors = [(a - b).abs() / b.std() for a, b in zip(made.latents, dense.latents, strict=True)]
    return {
        "psnr_db": psnr(made.videos, dense.videos),
        "ssim": round(statistics.mean(map(ssim, made.videos, dense.videos)), 4),
        "latent_error_mean": round(statistics.mean(e.mean().item() for e in errors), 4),
        "latent_error_max": round(max(e.max().item() for e in errors), 2),
        **{name: share(made.scores, name) for name in JUDGED},
        "points": {name: asdict(points(made.scores, dense.scores, name)) for name in JUDGED},
    }


def share(scores: Sequence[Mapping[str, bool]], name: str) -> float:
    return statistics.fmean(each[name] for each in scores)


def points(ones: Sequence[Mapping[str, bool]], others: Sequence[Mapping[str, bool]], name: str) -> Points:
    """Ones' share less others', with a bootstrap over the prompts, which both answered."""
    differences = [a[name] - b[name] for a, b in zip(ones, others, strict=True)]
    rng = random.Random(0)
    drawn = [statistics.fmean(rng.choices(differences, k=len(differences))) for _ in range(RESAMPLES)]
    cuts = statistics.quantiles(drawn, n=40, method="inclusive")
    return Points(statistics.fmean(differences), cuts[0], cuts[-1])


def psnr(ones: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Mean of the videos' own, in dB, of pixels in 0..1."""
    squares = [(a - b).square().mean().clamp(min=EXACT) for a, b in zip(ones, others, strict=True)]
    return round(statistics.mean(-10 * square.log10().item() for square in squares), 2)


def ssim(one: Tensor, other: Tensor) -> float:
    """Mean of the frames' own, of [1, 3, F, H, W] in 0..1, with scikit-image's window of 7 pixels."""
    from skimage.metrics import structural_similarity

    pairs = zip(one[0].unbind(1), other[0].unbind(1), strict=True)
    return statistics.mean(
        float(structural_similarity(a.numpy(), b.numpy(), channel_axis=0, data_range=1.0)) for a, b in pairs
    )


if __name__ == "__main__":
    main()
