"""The pipeline against the original's sampler, end to end, and what it promises when it is stopped."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Golden, assert_golden
from golden_models import GoldenText, golden_dit, golden_vae
from torch import Tensor, nn

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.errors import Cancelled, NumericalError
from hyvideo_rt.models.dit import Conditioning, HunyuanVideoDiT, Rope
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import TIMESTEPS, Predict, SamplingParams, denoise, initial_noise, make_sigmas

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


class Recorder:
    """What the pipeline gives the DiT, and what comes back."""

    def __init__(self, dit: HunyuanVideoDiT, monkeypatch: pytest.MonkeyPatch) -> None:
        self.conditions: list[tuple[Any, ...]] = []  # t [n], text_states, text_states_2, guidance [n]
        self.calls: list[tuple[Tensor, Rope, Tensor]] = []  # x, rope, velocity
        condition = dit.condition

        def recorded(*args: Any) -> Conditioning:
            self.conditions.append(args)
            return condition(*args)

        def keep(_module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            self.calls.append((args[0], args[2], out))

        monkeypatch.setattr(dit, "condition", recorded)
        dit.register_forward_hook(keep)


@pytest.mark.parametrize("name", ["pipeline_embedded_a", "pipeline_cfg_a"])
@pytest.mark.usefixtures("rounded_as_golden")
@torch.inference_mode()
def test_every_golden_tensor(
    golden: Callable[[str], Golden], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original runs its videos, or [negative ; positive] under CFG, as rows of a batch; we one by one."""
    file, pipeline = golden(name), build(golden, name)
    expected = {key: value for key, value in file.tensors.items() if not key.startswith("in.")}
    compared = set()

    def compare(key: str, got: Tensor, rows: slice, atol: float) -> None:
        compared.add(key)
        assert_golden(got, expected[key][rows], atol, key)

    everything = slice(None)
    for i, seed in enumerate(file.metadata["seeds"]):
        params = params_of(file, seed)
        video, rows = slice(i, i + 1), everything if params.uses_cfg else slice(i, i + 1)
        recorder = Recorder(pipeline.dit, monkeypatch)
        sigmas = make_sigmas(params)
        text, negative = pipeline.encode("prompt", params)
        predict = pipeline.predictor(text, negative, params, sigmas)
        states: list[Tensor] = []
        velocities: list[Tensor] = []

        def traced(
            x: Tensor, step: int, predict: Predict = predict, v: Any = velocities, s: Any = states
        ) -> Tensor:
            s.append(x)
            v.append(predict(x, step))
            velocity: Tensor = v[-1]
            return velocity

        states.append(denoise(traced, initial_noise(params.bucket, seed), sigmas))
        compare("sigmas", sigmas, everything, 1e-6)
        compare("timesteps", TIMESTEPS * sigmas[:-1], everything, 2e-4)
        conditions = recorder.conditions[::-1]  # the negative one is made last
        mask = expected["model_in.text_mask"][rows]
        compare("model_in.text_mask", mask_of(conditions, mask), rows, 0)
        padded = [F.pad(c[1][:1], (0, 0, 0, mask.shape[1] - c[1].shape[1])) for c in conditions]
        expected["model_in.text_states"][rows] *= mask[..., None]  # what stands in padding is not compared
        compare("model_in.text_states", torch.cat(padded), rows, CONDITIONING_ATOL)
        compare("model_in.text_states_2", torch.cat([c[2][:1] for c in conditions]), rows, CONDITIONING_ATOL)
        if "model_in.guidance" in expected:
            compare("model_in.guidance", torch.cat([c[3][:1] for c in conditions]), rows, 0)
        for part, table in zip(("cos", "sin"), recorder.calls[0][1], strict=True):
            compare(f"model_in.freqs_{part}", table.repeat_interleave(2, dim=-1), everything, 1e-6)
        for step, velocity in enumerate(velocities):
            calls = recorder.calls[step * len(conditions) : (step + 1) * len(conditions)]
            compare(
                f"step{step}.model_in.t", torch.cat([c[0][step : step + 1] for c in conditions]), rows, 2e-4
            )
            compare(f"step{step}.model_in.x", torch.cat([call[0] for call in calls]), rows, LATENTS_ATOL)
            compare(f"step{step}.model_out", torch.cat([call[2] for call in calls]), rows, LATENTS_ATOL)
            compare(f"step{step}.sched_model_output", velocity, video, LATENTS_ATOL)
            compare(f"step{step}.latents_after", states[step + 1], video, LATENTS_ATOL)
        compare("video", torch.cat(list(pipeline.decode(states[-1])), dim=2), video, VIDEO_ATOL)
    assert compared == expected.keys()


def mask_of(conditions: list[tuple[Any, ...]], like: Tensor) -> Tensor:
    """Ones for the tokens that we kept, where the original pads."""
    lengths = torch.tensor([c[1].shape[1] for c in conditions])
    return (torch.arange(like.shape[1]) < lengths[:, None]).to(like.dtype)


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


def test_offloaded_networks_are_back_where_they_rest(
    golden: Callable[[str], Golden], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the stage. The device here is a copy; on a GPU see test_pipeline_gpu.py."""
    pipeline = build(golden, "pipeline_embedded_a")
    pipeline.offload = True

    def places(module: nn.Module) -> list[int]:
        return [tensor.data_ptr() for tensor in module.state_dict().values()]

    def visit_and_fail() -> None:
        with pipeline.visiting(pipeline.vae, pipeline.dit):
            assert not {*places(pipeline.vae), *places(pipeline.dit)} & {*at_rest[0], *at_rest[1]}
            assert places(pipeline.text_encoder.llm) == at_rest[2]
            raise RuntimeError("in the middle")

    networks = (pipeline.vae, pipeline.dit, pipeline.text_encoder.llm, pipeline.text_encoder.clip)
    at_rest = [places(network) for network in networks]
    monkeypatch.setattr(Tensor, "to", lambda tensor, *args, **kwargs: tensor.clone())
    with pytest.raises(RuntimeError, match="in the middle"):
        visit_and_fail()
    assert [places(network) for network in networks] == at_rest
