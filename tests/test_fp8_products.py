"""The DiT whose blocks multiply in 8 bits, without engines."""

import pytest
import torch
from torch import Tensor

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.main import main
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.kernels.ops import REFERENCE
from hyvideo_rt.kernels.rope import rope_table
from hyvideo_rt.models.dit import HunyuanVideoDiT, block_weights
from hyvideo_rt.models.linear import Fp8Linear, ScaledFp8Linear, TransposedFp8Linear, linear_names
from hyvideo_rt.pipeline import default_ops

BUCKET = Bucket(64, 64, 17)


@torch.inference_mode()
def velocity(dit: HunyuanVideoDiT, device: str = "cpu") -> Tensor:
    config, generator = dit.config, torch.Generator().manual_seed(0)
    dtype = dit.img_in.proj.weight.dtype
    text = torch.randn(1, 9, config.text_dim, generator=generator).to(device, dtype)
    pooled = torch.randn(1, config.pooled_dim, generator=generator).to(device, dtype)
    latents = torch.randn(1, 16, *BUCKET.latent_shape, generator=generator).to(device)
    cos, sin = (x.to(device) for x in rope_table(BUCKET.grid, config.rope_dims, config.rope_theta))
    t, guidance = torch.tensor([700.0], device=device), torch.tensor([6000.0], device=device)
    out: Tensor = dit(latents, dit.condition(t, text, pooled, guidance), (cos, sin))
    return out.cpu()


def relative(got: Tensor, exact: Tensor) -> float:
    return float((got - exact).norm() / exact.norm())


def test_it_computes_nearly_the_same() -> None:
    checkpoint = embedded_tiny()
    exact = velocity(checkpoint.load_dit("cpu", torch.float32))
    weights = velocity(checkpoint.load_dit("cpu", torch.float32, fp8=True))
    products = velocity(checkpoint.load_dit("cpu", torch.float32, fp8=True, fp8_products=True))
    assert relative(weights, exact) < relative(products, exact)


def test_it_computes_what_the_engines_do() -> None:
    """In fp64: in fp32 two orders of summation round a few values to different neighbours, which grows."""
    checkpoint = embedded_tiny()
    products = velocity(checkpoint.load_dit("cpu", torch.float64, fp8=True, fp8_products=True))
    engines = in_the_engines_arithmetic(checkpoint.load_dit("cpu", torch.float64, fp8=True))
    assert relative(products, velocity(engines)) < 1e-6


def in_the_engines_arithmetic(dit: HunyuanVideoDiT) -> HunyuanVideoDiT:
    """The blocks' linear layers as programs for ONNX have them."""
    for block in (*dit.double_blocks, *dit.single_blocks):
        for name in (name for name in linear_names(block) if f"{name}.weight" in block_weights(block)):
            old = block.get_submodule(name)
            assert isinstance(old, Fp8Linear)
            new = TransposedFp8Linear(old.weight.shape[1], old.weight.shape[0])
            new.load_state_dict({"weight": old.weight.t(), "bias": old.bias, "scale": old.scale})
            block.set_submodule(name, new)
    return dit


def test_fused_and_unfused_agree() -> None:
    """With a wide layer, which reads no 8 bits, the others quantise for themselves; here it has no effect."""
    load = embedded_tiny().load_dit
    fused = load("cpu", torch.float32, fp8=True, fp8_products=True)
    unfused = load("cpu", torch.float32, fp8=True, fp8_products=True, wide=("no layer",))
    assert torch.equal(velocity(fused), velocity(unfused))
    wide = load("cpu", torch.float32, fp8=True, fp8_products=True, wide=("linear2",))
    assert not torch.equal(velocity(wide), velocity(fused))
    assert {type(block.linear2) for block in wide.single_blocks} == {torch.nn.Linear}


def test_modulations_keep_weights_in_8_bits_only() -> None:
    dit = embedded_tiny().load_dit("cpu", torch.float32, fp8=True, fp8_products=True)
    kinds = {name: type(m) for name, m in dit.double_blocks[0].named_modules() if isinstance(m, Fp8Linear)}
    assert {name for name, kind in kinds.items() if kind is Fp8Linear} == {"img_mod.linear", "txt_mod.linear"}
    assert sum(kind is ScaledFp8Linear for kind in kinds.values()) == 8


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--fp8-products"], "without --use-fp8"),
        (["--fp8-products", "--use-fp8", "--backend", "inductor"], "with --backend inductor"),
    ],
)
def test_what_makes_no_sense_is_refused(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--model", "tiny", "--prompt", "a red circle", *flags]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    """Triton's rounding and _scaled_mm against the reference's on a CPU, both in bf16."""
    checkpoint = embedded_tiny()
    ops = default_ops(torch.device("cuda"))
    dit = checkpoint.load_dit("cuda", torch.bfloat16, fp8=True, fp8_products=True, ops=ops)
    exact = velocity(checkpoint.load_dit("cpu", torch.float32))
    on_cpu = velocity(checkpoint.load_dit("cpu", torch.bfloat16, fp8=True, fp8_products=True, ops=REFERENCE))
    assert relative(velocity(dit, "cuda"), exact) < 1.5 * relative(on_cpu, exact)
