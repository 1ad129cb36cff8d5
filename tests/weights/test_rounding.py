"""Rounding with regard to the inputs: less error in the products, and nothing else changes."""

import pytest
import torch
from torch import Tensor

from hyvideo_rt.kernels.fp8 import E4M3
from hyvideo_rt.weights.loading import quantise_e4m3
from hyvideo_rt.weights.rounding import round_for_inputs

OUT, IN, ROWS = 24, 48, 400


def values(weight: Tensor, scale: Tensor) -> Tensor:
    return weight.float() * scale[:, None]


def correlated(rank: int, generator: torch.Generator) -> Tensor:
    """Rows of inputs that lie near a subspace, as activations do."""
    basis = torch.randn(rank, IN, generator=generator)
    noise = 0.05 * torch.randn(ROWS, IN, generator=generator)
    return torch.randn(ROWS, rank, generator=generator) @ basis + noise


@pytest.mark.parametrize("rank", [4, 16])
def test_products_are_nearer_than_with_the_nearest_weights(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    weight, seen = torch.randn(OUT, IN, generator=generator), correlated(rank, generator)
    narrow, scale = round_for_inputs(weight, seen.T @ seen)
    nearest, same_scale = quantise_e4m3(weight)
    assert (narrow.dtype, narrow.shape) == (E4M3, weight.shape)
    assert torch.equal(scale, same_scale)

    def error(rounded: Tensor) -> float:
        return float((seen @ (values(rounded, scale) - weight).T).norm())

    assert error(narrow) < 0.5 * error(nearest)
    assert (values(narrow, scale) - weight).norm() > (values(nearest, scale) - weight).norm()


def test_inputs_that_have_nothing_in_common_leave_the_nearest() -> None:
    weight = torch.randn(OUT, IN, generator=torch.Generator().manual_seed(0))
    for moment in (torch.diag(torch.rand(IN) + 0.1), torch.zeros(IN, IN)):
        for got, expected in zip(round_for_inputs(weight, moment), quantise_e4m3(weight), strict=True):
            assert torch.equal(got.float(), expected.float())


def test_the_second_of_two_inputs_makes_good_what_the_first_lost() -> None:
    """37.1 lies between 36 and 40, 150.3 between 144 and 160: 2 * 36 + 160 is nearer than 2 * 36 + 144."""
    weight = torch.tensor([[448.0, 37.1, 205.0, 150.3]])  # the largest makes the scale 1
    x = torch.tensor([0.0, 2.0, 0.0, 1.0])
    got, _ = round_for_inputs(weight, torch.outer(x, x))
    nearest, _ = quantise_e4m3(weight)
    assert nearest.float().tolist() == [[448, 36, 208, 144]]
    assert got.float().tolist() == [[448, 36, 208, 160]]


@pytest.mark.gpu
def test_a_gpu_rounds_as_well() -> None:
    """Not bit for bit: a value between two points may fall to the other one there."""
    generator = torch.Generator().manual_seed(3)
    weight, seen = torch.randn(OUT, IN, generator=generator), correlated(8, generator)
    moment = seen.T @ seen
    errors = []
    for device in ("cpu", "cuda"):
        narrow, scale = round_for_inputs(weight.to(device), moment.to(device))
        assert narrow.device.type == scale.device.type == device
        errors.append(float((seen @ (values(narrow, scale).cpu() - weight).T).norm()))
    assert errors[1] == pytest.approx(errors[0], rel=0.2)


def test_scaling_the_moments_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, seen = torch.randn(OUT, IN, generator=generator), correlated(8, generator)
    one, many = (round_for_inputs(weight, factor * (seen.T @ seen))[0] for factor in (1.0, 64.0))
    assert torch.equal(one.float(), many.float())


def test_fewer_rows_than_inputs_are_enough() -> None:
    generator = torch.Generator().manual_seed(2)
    weight, seen = torch.randn(OUT, IN, generator=generator), torch.randn(3, IN, generator=generator)
    narrow, scale = round_for_inputs(weight, seen.T @ seen)
    assert values(narrow, scale).isfinite().all()
    nearest = values(*quantise_e4m3(weight))
    assert (seen @ (values(narrow, scale) - weight).T).norm() < 0.3 * (seen @ (nearest - weight).T).norm()
