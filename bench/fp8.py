"""What FP8 does to the embedded model's videos: `python -m hyvideo_rt.bench.fp8 [--prompts 200] [--out F]`.

On a CPU, with the arithmetic of the FP8 engines: both sides of every product of the blocks and of attention
rounded to E4M3. The judge's scores of held-out prompts beside those in bf16, and the PSNR of the one videos
against the others. Then, on fewer prompts, one kind of layer in FP8 at a time: which of them costs most. With
--modelopt (pip install nvidia-modelopt) the linear layers also as that library's default for FP8 has them:
one scale per tensor, of activations too, calibrated on whole denoising runs of training prompts.
"""

import argparse
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

import torch
from torch import Tensor, nn

from hyvideo_rt.bench.conditions import conditions
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.export.programs import ATTENTION, LINEARS
from hyvideo_rt.kernels.attention import joint_attention_fp8
from hyvideo_rt.models.dit import DoubleBlock, SingleBlock
from hyvideo_rt.models.linear import TransposedFp8Linear
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.weights.loading import quantise_e4m3
from tiny.captions import caption
from tiny.latents import MAIN
from tiny.networks import Denoiser
from tiny.resume import denoiser_of
from tiny.sample import sample
from tiny.scores import score_all
from tiny.texts import Tokenizers
from tiny.world import sample_scene

CPU = torch.device("cpu")
LAYERS = (ATTENTION, *LINEARS["double_block"], *LINEARS["single_block"])
BATCH = 50
GUIDANCE = 6.0
CALIBRATION = 16  # prompts
IN_BLOCKS = re.compile(r"(double|single)_blocks\.(?!.*mod)")  # of which the modulations are not


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--each", type=int, default=50, help="prompts for one kind of layer at a time")
    parser.add_argument("--modelopt", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rng = Random("fp8")
    scenes = [sample_scene(rng, "heldout") for _ in range(args.prompts)]
    asked = [caption(scene, rng) for scene in scenes]
    pipeline = Pipeline.load(embedded_tiny(), CPU)
    bf16 = videos(pipeline, (), asked)
    fp8 = videos(pipeline, LAYERS, asked)
    few = asked[: args.each]
    result: dict[str, Any] = {
        "conditions": conditions(CPU, "tiny"),
        "prompts": len(asked),
        "bf16": score_all(bf16, scenes),
        "fp8": score_all(fp8, scenes),
        "psnr_db": psnr(fp8, bf16),
        "prompts_each": len(few),
        "psnr_db_each": {name: psnr(videos(pipeline, (name,), few), bf16[: args.each]) for name in LAYERS},
    }
    if args.modelopt:
        linears = tuple(name for name in LAYERS if name != ATTENTION)
        result["psnr_db_linears"] = psnr(videos(pipeline, linears, few), bf16[: args.each])
        result["psnr_db_linears_modelopt"] = psnr(modelopt_videos(pipeline, few), bf16[: args.each])
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def videos(pipeline: Pipeline, fp8: Collection[str], asked: Sequence[str]) -> Tensor:
    """[B, 3, F, H, W] in [-1, 1], one per prompt, these layers of all blocks in FP8."""
    denoiser = denoiser_of(pipeline).eval()
    narrow(denoiser, fp8)
    return videos_of(pipeline, denoiser, asked)


def modelopt_videos(pipeline: Pipeline, asked: Sequence[str]) -> Tensor:
    import modelopt.torch.quantization as mtq

    rng = Random("calibration")
    known = [caption(sample_scene(rng, "train"), rng) for _ in range(CALIBRATION)]
    denoiser = denoiser_of(pipeline).eval()
    mtq.quantize(denoiser.dit, mtq.FP8_DEFAULT_CFG, lambda _: videos_of(pipeline, denoiser, known))
    mtq.disable_quantizer(denoiser.dit, lambda name: not IN_BLOCKS.match(name))
    return videos_of(pipeline, denoiser, asked)


@torch.no_grad()
def videos_of(pipeline: Pipeline, denoiser: Denoiser, asked: Sequence[str]) -> Tensor:
    tokenizers, made = Tokenizers(), []
    for start in range(0, len(asked), BATCH):
        texts = tokenizers.encode(asked[start : start + BATCH])
        empty = tokenizers.encode([""])
        made.append(
            sample(pipeline.vae, denoiser, texts, empty, scale=GUIDANCE, bucket=Bucket(*MAIN), seed=start)
        )
    return torch.cat(made)


def narrow(denoiser: Denoiser, layers: Collection[str]) -> None:
    """The layers of these names compute in FP8 from now on."""
    for block in (*denoiser.dit.double_blocks, *denoiser.dit.single_blocks):
        own = LINEARS["double_block" if isinstance(block, DoubleBlock) else "single_block"]
        for name in (name for name in own if name in layers):
            block.set_submodule(name, fp8_linear(cast("nn.Linear", block.get_submodule(name))))
        if ATTENTION in layers:
            assert isinstance(block, (DoubleBlock, SingleBlock))
            block.ops = replace(block.ops, joint_attention=joint_attention_fp8)


def fp8_linear(linear: nn.Linear) -> TransposedFp8Linear:
    new = TransposedFp8Linear(linear.in_features, linear.out_features)
    weight, scale = quantise_e4m3(linear.weight)
    new.load_state_dict({"weight": weight.t(), "bias": linear.bias, "scale": scale})
    return new


def psnr(ones: Tensor, others: Tensor) -> float:
    """Mean of the videos' own, in dB, of pixels in 0..1."""
    difference = ones.clamp(-1, 1) - others.clamp(-1, 1)
    squares = difference.square().mean(dim=(1, 2, 3, 4)) / 4
    return round(float(-10 * squares.clamp(min=1e-10).log10().mean()), 2)


if __name__ == "__main__":
    main()
