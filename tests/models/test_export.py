"""The networks can be traced: torch.export gives graphs that compute the same, at any size."""

from collections.abc import Callable

import pytest
import torch
from conftest import Golden
from golden_models import golden_dit, golden_vae
from torch import Tensor, nn

from hyvideo_rt.config import MODELS
from hyvideo_rt.models.dit import DoubleBlock, HunyuanVideoDiT, SingleBlock
from hyvideo_rt.models.vae import CausalVAE

ATOL = 1e-5


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def block_inputs(block: nn.Module, d: int, hd: int, image: int, text: int) -> tuple[object, ...]:
    """Positional inputs of a block for `image` and `text` tokens, the last of the text being padding."""
    rope, valid = (randn(image, hd // 2).cos(), randn(image, hd // 2).sin()), torch.tensor([image + text - 1])
    if isinstance(block, DoubleBlock):
        return randn(1, image, d), randn(1, text, d), randn(1, 6, d), randn(1, 6, d), rope, valid
    assert isinstance(block, SingleBlock)
    return randn(1, image + text, d), randn(1, 3, d), rope, valid


@pytest.mark.parametrize("kind", ["double_blocks", "single_blocks"])
def test_blocks(golden: Callable[[str], Golden], kind: str) -> None:
    dit = golden_dit(golden("dit_a"))
    block = dit.get_submodule(f"{kind}.0")
    inputs = block_inputs(block, dit.config.hidden_size, dit.config.head_dim, 24, 5)
    program = torch.export.export(block, inputs)
    got, expected = program.module()(*inputs), block(*inputs)
    torch.testing.assert_close(got, expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize("kind", ["double_blocks", "single_blocks"])
def test_blocks_of_the_published_size_at_720p(kind: str) -> None:
    """On the meta device: the graph is one for all 118,800 + 256 tokens, with one attention and no loop."""
    config = MODELS["HYVideo-T/2-cfgdistill"].dit
    with torch.device("meta"):
        dit = HunyuanVideoDiT(config)
        d, hd, image, text = config.hidden_size, config.head_dim, 118_800, 256
        rope, valid = (
            (torch.empty(image, hd // 2), torch.empty(image, hd // 2)),
            torch.empty(1, dtype=torch.int64),
        )
        streams = [torch.empty(1, image, d), torch.empty(1, text, d)]
        mods = [torch.empty(1, 6, d), torch.empty(1, 6, d)]
        if kind == "single_blocks":
            streams, mods = [torch.empty(1, image + text, d)], [torch.empty(1, 3, d)]
    program = torch.export.export(dit.get_submodule(f"{kind}.0"), (*streams, *mods, rope, valid))
    calls = [str(node.target) for node in program.graph.nodes if str(node.target).startswith("aten")]
    assert sum("scaled_dot_product_attention" in call for call in calls) == 1
    assert len(calls) < 200


def test_a_vae_tile(golden: Callable[[str], Golden]) -> None:
    vae = golden_vae(golden("vae_a"))

    class Decode(nn.Module):
        def __init__(self, vae: CausalVAE) -> None:
            super().__init__()
            self.vae = vae

        def forward(self, z: Tensor) -> Tensor:
            return self.vae.decode(z)

    z = randn(1, 16, 5, 4, 3)
    program = torch.export.export(Decode(vae), (z,))
    torch.testing.assert_close(program.module()(z), vae.decode(z), atol=5e-5, rtol=0)
    assert not any("mkldnn" in str(node.target) for node in program.graph.nodes)
