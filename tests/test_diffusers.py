"""The whole pipeline against diffusers' own, on the embedded model's folder: same request, same video."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from hyvideo_rt.bench.peers import load_peer, peer_video
from hyvideo_rt.buckets import TINY_PRESETS, Bucket
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import SamplingParams, denoise, initial_noise, make_sigmas
from hyvideo_rt.weights.checkpoint import Checkpoint
from hyvideo_rt.weights.convert import convert

FOLDER = Path(str(files("hyvideo_rt") / "tiny_model"))
ATOL = 1e-4  # of the decoded video in 0..1, fp32
PARAMS = SamplingParams(Bucket(64, 64, 17), seed=5, num_inference_steps=4)


@pytest.fixture(scope="module")
def ours() -> Pipeline:
    return Pipeline.load(Checkpoint.open(FOLDER), torch.device("cpu"))


@pytest.fixture(scope="module")
def peer() -> Any:
    return load_peer(FOLDER)


@torch.inference_mode()
def our_video(pipeline: Pipeline, prompt: str, params: SamplingParams) -> torch.Tensor:
    sigmas = make_sigmas(params)
    text, negative = pipeline.encode(prompt, params)
    predict = pipeline.predictor(text, negative, params, sigmas)
    latents = denoise(predict, initial_noise(params.bucket, params.seed), sigmas)
    return torch.cat(list(pipeline.decode(latents)), dim=2)


@pytest.mark.parametrize(
    "prompt", ["a red circle moves right on a white background", "", "猫 🐈", "red " * 400]
)
def test_same_video(ours: Pipeline, peer: Any, prompt: str) -> None:
    expected = peer_video(peer, prompt, PARAMS)
    assert expected.std() > 0.01
    torch.testing.assert_close(our_video(ours, prompt, PARAMS), expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize("bucket", [*TINY_PRESETS.values(), Bucket(64, 288, 69)], ids=str)
def test_same_video_at_every_size(ours: Pipeline, peer: Any, bucket: Bucket) -> None:
    """The last one is tiled in space and in time."""
    params = replace(PARAMS, bucket=bucket, num_inference_steps=2)
    expected = peer_video(peer, "a blue star", params)
    torch.testing.assert_close(our_video(ours, "a blue star", params), expected, atol=ATOL, rtol=0)


def test_same_video_with_real_cfg_and_the_default_steps(ours: Pipeline, peer: Any) -> None:
    params = replace(
        PARAMS, num_inference_steps=20, true_cfg_scale=4.5, negative_prompt="blurred", guidance_scale=1
    )
    expected = peer_video(peer, "a green square stands still", params)
    torch.testing.assert_close(
        our_video(ours, "a green square stands still", params), expected, atol=ATOL, rtol=0
    )


def test_same_video_after_converting_there_and_back(ours: Pipeline, tmp_path: Path) -> None:
    convert(Checkpoint.open(FOLDER), tmp_path / "original", "original")
    convert(Checkpoint.open(tmp_path / "original"), tmp_path / "diffusers", "diffusers")
    expected = our_video(ours, "a red circle", PARAMS)
    original = Pipeline.load(Checkpoint.open(tmp_path / "original"), torch.device("cpu"))
    assert torch.equal(our_video(original, "a red circle", PARAMS), expected)
    peer = load_peer(tmp_path / "diffusers")
    torch.testing.assert_close(peer_video(peer, "a red circle", PARAMS), expected, atol=ATOL, rtol=0)


def test_guidance_and_prompt_matter(ours: Pipeline) -> None:
    """What the comparison would miss if both sides ignored it."""
    base = our_video(ours, "a red circle", PARAMS)
    for other in (
        our_video(ours, "a blue star", PARAMS),
        our_video(ours, "a red circle", replace(PARAMS, guidance_scale=1.0)),
        our_video(ours, "a red circle", replace(PARAMS, flow_shift=3.0)),
    ):
        assert (other - base).abs().max() > 10 * ATOL
