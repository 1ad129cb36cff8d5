"""The pipeline against the original's sampler, end to end, and what it promises when it is stopped."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Golden, assert_golden
from golden_models import GoldenText, golden_dit, golden_vae
from torch import Tensor, nn

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.errors import Cancelled, NumericalError
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import Predict, SamplingParams, denoise, initial_noise, make_sigmas

CONDITIONING_ATOL = 2e-5  # of the golden tensors' README
LATENTS_ATOL = VIDEO_ATOL = 5e-5


def build(golden: Callable[[str], Golden], name: str) -> Pipeline:
    file = golden(name)
    dit, vae, text = (golden(file.metadata[part]) for part in ("dit", "vae", "text"))
    encoder = GoldenText(text, file.group("in"))
    return Pipeline(golden_dit(dit), golden_vae(vae), encoder, device=torch.device("cpu"))  # type: ignore[arg-type]


def params_of(file: Golden, seed: int) -> SamplingParams:
    raw = file.metadata["predict_kwargs"]
    return SamplingParams(
        Bucket(*file.metadata["size_hwf"]),
        seed=seed,
        num_inference_steps=raw["infer_steps"],
        guidance_scale=raw["embedded_guidance_scale"] or 0.0,
        true_cfg_scale=raw["guidance_scale"],
        negative_prompt="negative",
        flow_shift=raw["flow_shift"],
    )


@pytest.mark.parametrize("name", ["pipeline_embedded_a", "pipeline_cfg_a"])
@pytest.mark.usefixtures("rounded_as_golden")
@torch.inference_mode()
def test_every_golden_step_and_the_video(golden: Callable[[str], Golden], name: str) -> None:
    file, pipeline = golden(name), build(golden, name)
    expected = file.tensors
    for i, seed in enumerate(file.metadata["seeds"]):
        params = params_of(file, seed)
        sigmas = make_sigmas(params)
        assert_golden(sigmas, expected["sigmas"], 1e-6)
        text, negative = pipeline.encode("prompt", params)
        for states, row in ((text, -1), (negative, 0)):
            if states is not None:
                valid = expected["model_in.text_mask"][row].bool()
                for got, key in ((states.states[0], "text_states"), (states.pooled[0], "text_states_2")):
                    golden_row = expected[f"model_in.{key}"][row]
                    golden_row = golden_row[valid] if key == "text_states" else golden_row
                    assert_golden(got, golden_row, CONDITIONING_ATOL)

        predict = pipeline.predictor(text, negative, params, sigmas)
        trace: list[tuple[Tensor, Tensor]] = []

        def traced(x: Tensor, step: int, predict: Predict = predict, trace: Any = trace) -> Tensor:
            velocity = predict(x, step)
            trace.append((x, velocity))
            return velocity

        latents = denoise(traced, initial_noise(params.bucket, seed), sigmas)
        for step, (x, velocity) in enumerate(trace):
            for got, key in ((x, "model_in.x"), (velocity, "sched_model_output")):
                one = expected[f"step{step}.{key}"][i : i + 1]
                assert_golden(got, one, LATENTS_ATOL, f"step {step} {key}")
        last = expected[f"step{len(trace) - 1}.latents_after"][i : i + 1]
        assert_golden(latents, last, LATENTS_ATOL)
        video = torch.cat(list(pipeline.decode(latents)), dim=2)
        assert_golden(video, expected["video"][i : i + 1], VIDEO_ATOL)


def test_generate_gives_the_golden_video(golden: Callable[[str], Golden]) -> None:
    file, pipeline = golden("pipeline_cfg_a"), build(golden, "pipeline_cfg_a")
    reports: list[tuple[str, int, int]] = []
    video = pipeline.generate("prompt", params_of(file, 123), lambda *report: reports.append(report))
    expected = (file.tensors["video"][0] * 255).permute(1, 2, 3, 0)
    assert (torch.from_numpy(video.frames) - expected).abs().max() <= 1.02  # truncated, plus VIDEO_ATOL
    assert video.fps == 24
    assert set(video.timings_s) == {"encode", "denoise", "decode"}
    assert video.metadata["negative_prompt"] == "negative"
    assert json.loads(json.dumps(dict(video.metadata))) == video.metadata
    tiles = [report for report in reports if report[0] == "decode"]
    assert reports[:2] == [("encode", 0, 1), ("encode", 1, 1)]
    assert reports[2:7] == [("denoise", step, 4) for step in range(5)]
    assert tiles == [("decode", tile, tiles[-1][2]) for tile in range(tiles[-1][2] + 1)]


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
@pytest.mark.parametrize("stop", [Cancelled, KeyboardInterrupt])
def test_progress_may_stop_any_stage(
    golden: Callable[[str], Golden], stage: str, stop: type[BaseException]
) -> None:
    file, pipeline = golden("pipeline_cfg_a"), build(golden, "pipeline_cfg_a")
    reports: list[tuple[str, int, int]] = []

    def progress(*report: Any) -> None:
        reports.append(report)
        if report[:2] == (stage, 1):
            raise stop

    with pytest.raises(stop):
        pipeline.generate("prompt", params_of(file, 123), progress)
    assert reports[-1][:2] == (stage, 1)
    again = pipeline.generate("prompt", params_of(file, 123))
    assert again.frames.std() > 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_weight_is_an_error_and_no_video(golden: Callable[[str], Golden], value: float) -> None:
    file, pipeline = golden("pipeline_cfg_a"), build(golden, "pipeline_cfg_a")
    _fill(pipeline.dit.final_layer.linear, value)
    with pytest.raises(NumericalError, match="after step 1 of 4"):
        pipeline.generate("prompt", params_of(file, 123))


def test_nan_of_the_vae_and_a_black_video_are_errors(golden: Callable[[str], Golden]) -> None:
    file, pipeline = golden("pipeline_cfg_a"), build(golden, "pipeline_cfg_a")
    _fill(pipeline.vae.decoder.conv_out.conv, -50.0)
    pipeline.vae.decoder.conv_out.conv.weight.data.zero_()
    with pytest.raises(NumericalError, match="every pixel"):
        pipeline.generate("prompt", params_of(file, 123))
    _fill(pipeline.vae.decoder.conv_out.conv, float("nan"))
    with pytest.raises(NumericalError, match="NaN"):
        pipeline.generate("prompt", params_of(file, 123))


def _fill(module: nn.Module, bias: float) -> None:
    assert isinstance(module.bias, nn.Parameter)
    module.bias.data.fill_(bias)
