import pytest
import torch
from torch import nn

from tiny.muon import ADAM_SIZE, Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 8, 20), (3, 20, 8), (1, 16, 16)])
def test_singular_values_become_about_one_and_directions_stay(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(1, 30, min(shape[1:]))
    out = orthogonalised(left * values @ right)
    middle = left.mT @ out @ right.mT
    found = middle.diagonal(dim1=1, dim2=2)
    assert found.min() > 0.6
    assert found.max() < 1.3
    torch.testing.assert_close(middle, torch.diag_embed(found), atol=1e-4, rtol=0)


def test_a_step_goes_down_as_far_as_adamw_would() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv3d(4, 8, 3), nn.Conv3d(4, 8, 3), nn.Embedding(5, 6), nn.LayerNorm(6))
    before = [p.detach().clone() for p in module.parameters()]
    gradients = [torch.randn_like(p) for p in before]
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer = Muon(module, torch.tensor(0.01), weight_decay=0.0)
    optimizer.step()
    for parameter, start, gradient in zip(module.parameters(), before, gradients, strict=True):
        change = parameter.detach() - start
        assert (change * gradient).sum() < 0
        size = change.square().mean().sqrt()
        expected = 0.01 * ADAM_SIZE if start.ndim == 5 else 0.01
        assert 0.6 * expected < size < 1.3 * expected
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in module.parameters())


def test_weights_shrink_without_a_gradient() -> None:
    layer = nn.Linear(4, 4)
    nn.init.ones_(layer.weight)
    layer.weight.grad = torch.zeros(4, 4)
    Muon(layer, torch.tensor(0.5), weight_decay=0.1).step()
    torch.testing.assert_close(layer.weight.detach(), torch.full((4, 4), 0.95))
