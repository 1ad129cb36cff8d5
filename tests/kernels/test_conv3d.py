import pytest
import torch
import torch.nn.functional as F

from hyvideo_rt.kernels.conv3d import conv3d_reference


@pytest.mark.parametrize("size", [(1, 16, 5, 10, 10), (1, 32, 19, 34, 34), (2, 3, 3, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
def test_equals_torch_in_fp64(size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=generator)
    weight = torch.randn(8, size[1], 3, 3, 3, generator=generator) / (27 * size[1]) ** 0.5
    bias = torch.randn(8, generator=generator)
    expected = F.conv3d(x.double(), weight.double(), bias.double(), stride).float()
    with torch.inference_mode():
        got = conv3d_reference(x, weight, bias, stride)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_training_has_gradients() -> None:
    weight = torch.randn(2, 3, 3, 3, 3, requires_grad=True)
    conv3d_reference(torch.randn(1, 3, 4, 4, 4), weight, torch.zeros(2), (1, 1, 1)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
