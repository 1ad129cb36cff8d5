import copy
import math
from collections import Counter
from functools import partial
from random import Random

import pytest
import torch
from torch import Tensor, nn

from tiny.muon import Muon
from tiny.training import (
    EAGER_STEPS,
    WARM_UP_STEPS,
    Average,
    Graphs,
    Step,
    chooser,
    learning_rate_factor,
    train,
)


def test_the_learning_rate_rises_with_steps_and_falls_with_time() -> None:
    assert learning_rate_factor(0, 0.0) == pytest.approx(1 / WARM_UP_STEPS)
    assert learning_rate_factor(WARM_UP_STEPS, 0.0) == 1
    assert learning_rate_factor(10**6, 0.5) == pytest.approx(0.5)
    assert learning_rate_factor(10**6, 1.0) == pytest.approx(0)


def test_the_average_forgets_its_start_and_lags_behind() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = Average(layer, decay=0.9)
    values = []
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(layer.weight, value)
        average.update()
        values.append(float(average.module.weight))
    assert values[-1] > 2
    assert values == sorted(values)
    assert values[-1] < 3


def test_training_stops_in_time_and_saves_at_the_end() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 1)
    average = Average(layer, decay=0.9)
    saved = []

    def step() -> tuple[Tensor, int]:
        x = torch.randn(32, 4)
        return (layer(x) - x.sum(dim=1, keepdim=True)).square().mean(), 32

    train(
        layer,
        average,
        lambda: step,
        minutes=1 / 60,
        learning_rate=0.05,
        save=lambda: saved.append(layer.weight[0, 0]),
    )
    assert len(saved) == 1
    assert (average.module.weight - 1).abs().max() < 0.05


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    layer = nn.Linear(1, 1)

    def step() -> tuple[Tensor, int]:
        return layer(torch.full((1, 1), math.inf)).sum(), 1

    with pytest.raises(FloatingPointError, match="the loss is"):
        train(layer, Average(layer, 0.9), lambda: step, minutes=1e-4, learning_rate=0.1, save=lambda: None)


def test_steps_are_drawn_by_weight() -> None:
    def often() -> tuple[Tensor, int]:
        raise AssertionError

    def seldom() -> tuple[Tensor, int]:
        raise AssertionError

    steps: dict[Step, float] = {often: 3, seldom: 1}
    draw = chooser(steps, Random(0))
    counts = Counter(draw() for _ in range(4000))
    assert 2.7 < counts[often] / counts[seldom] < 3.3


@pytest.mark.gpu
def test_graphs_train_as_eager_steps_do() -> None:
    """Two kinds of steps by turns, the learning rate changing under the graphs."""
    torch.manual_seed(0)
    data = {size: torch.randn(size, 16, device="cuda") for size in (32, 64)}
    first = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 1)).cuda()
    weights = []
    for graphs in (False, True):
        module, rate = copy.deepcopy(first), torch.zeros((), device="cuda")
        optimizer = Muon(module, rate)

        def step_on(module: nn.Module, optimizer: Muon, x: Tensor) -> tuple[Tensor, int]:
            loss = (module(x) - x.sum(dim=1, keepdim=True)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach(), len(x)

        steps = [partial(step_on, module, optimizer, x) for x in data.values()]
        replay, losses = Graphs().run, []
        for i in range(4 * EAGER_STEPS):
            rate.fill_(0.01 / (1 + i))
            step = steps[i % 2]
            loss, clips = replay(step) if graphs else step()
            assert clips == (32, 64)[i % 2]
            losses.append(float(loss))
        assert losses[-1] < losses[0]
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], atol=1e-3, rtol=1e-3)  # Muon orthogonalises in bf16
