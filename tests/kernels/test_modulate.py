import torch

from hyvideo_rt.kernels.modulate import EPS, gate_residual_reference, layer_norm_modulate_reference


def test_layer_norm_modulate_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    shift, scale = torch.randn(2, 2, 16, generator=generator, dtype=torch.float64)
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    expected = (x - mean) / torch.sqrt(variance + EPS) * (1 + scale[:, None]) + shift[:, None]
    torch.testing.assert_close(layer_norm_modulate_reference(x, shift, scale), expected, atol=1e-12, rtol=0)

    low = layer_norm_modulate_reference(*(t.bfloat16() for t in (x, shift, scale)))
    assert low.dtype == torch.bfloat16
    exact = layer_norm_modulate_reference(*(t.bfloat16().double() for t in (x, shift, scale)))
    half_unit = torch.finfo(torch.bfloat16).eps * exact.abs() / 2  # fp32 inside: one rounding, at the end
    assert ((low - exact).abs() <= half_unit * 1.01 + 1e-6).all()


def test_gate_residual_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 2, 5, 16, generator=generator)
    gate = torch.randn(2, 16, generator=generator)
    torch.testing.assert_close(gate_residual_reference(x, gate, y), x + gate[:, None] * y, atol=1e-6, rtol=0)
