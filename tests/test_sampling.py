from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import Golden

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.errors import InvalidRequest, NumericalError
from hyvideo_rt.sampling import SamplingParams, denoise, initial_noise, make_sigmas, resolve_seeds

PARAMS = SamplingParams(Bucket(64, 64, 17), seed=1)


@pytest.mark.parametrize(
    ("steps", "shift", "reverse"),
    [(4, 1, True), (4, 7, True), (30, 17, True), (50, 1, True), (50, 7, True), (4, 7, False)],
)
def test_golden_schedule_and_euler_run(
    golden: Callable[[str], Golden], steps: int, shift: float, reverse: bool
) -> None:
    name = f"steps{steps}_shift{shift}_{'rev' if reverse else 'fwd'}"
    file = golden("scheduler_a").group(name)
    params = replace(PARAMS, num_inference_steps=steps, flow_shift=shift, flow_reverse=reverse)
    sigmas = make_sigmas(params)
    torch.testing.assert_close(sigmas, file["sigmas"], atol=1e-6, rtol=0)
    torch.testing.assert_close(1000 * sigmas[:-1], file["timesteps"], atol=2e-4, rtol=0)

    states = []

    def predict(latents: torch.Tensor, i: int) -> torch.Tensor:
        states.append(latents)
        return file["euler.v"][i]

    states.append(denoise(predict, file["euler.x0"], sigmas))
    torch.testing.assert_close(torch.stack(states[1:]), file["euler.xs"], atol=1e-6, rtol=0)


def test_equals_diffusers_given_the_same_sigmas() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, 31)[:-1].tolist())
    sigmas = make_sigmas(replace(PARAMS, num_inference_steps=30))
    torch.testing.assert_close(sigmas, scheduler.sigmas, atol=2.4e-7, rtol=0)


def test_a_seed_is_one_noise_and_golden(golden: Callable[[str], Golden]) -> None:
    expected = golden("pipeline_embedded_a").tensors["step0.model_in.x"]
    got = torch.cat([initial_noise(Bucket(48, 48, 9), seed) for seed in (7, 8)])
    assert torch.equal(got, expected)


def test_a_straight_flow_ends_at_the_video() -> None:
    video, noise = torch.randn(2, 1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    out = denoise(lambda x, i: noise - video, noise, make_sigmas(PARAMS))
    torch.testing.assert_close(out, video, atol=1e-5, rtol=0)


def test_nan_stops_at_its_step() -> None:
    ran = []

    def predict(latents: torch.Tensor, i: int) -> torch.Tensor:
        ran.append(i)
        return latents * (float("nan") if i == 2 else 1)

    with pytest.raises(NumericalError, match="after step 3 of 50"):
        denoise(predict, torch.ones(1, 1, 1, 1, 1), make_sigmas(PARAMS))
    assert ran == [0, 1, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"num_inference_steps": 0},
        {"flow_shift": 0.0},
        {"flow_shift": float("nan")},
        {"guidance_scale": float("inf")},
        {"true_cfg_scale": -1.0},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_invalid_values_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match="got .*expected"):
        replace(PARAMS, **change)  # type: ignore[arg-type]


def test_seeds() -> None:
    assert resolve_seeds(5, 3) == [5, 6, 7]
    drawn = resolve_seeds(None, 20)
    assert len(set(drawn)) > 15
    assert all(0 <= seed <= 1_000_000 for seed in drawn)
