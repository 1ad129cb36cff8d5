"""The VAE against the original's golden tensors, in every tiling mode, and against diffusers."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import Golden, assert_golden
from golden_models import golden_vae
from torch import Tensor, nn

from hyvideo_rt.config import MODELS
from hyvideo_rt.models.tiling import Tiling, run_tiled
from hyvideo_rt.models.vae import CausalVAE

ATOL = 5e-5  # of the golden tensors' README
MODES = {  # case: cut in space, cut in time
    "c0_small": (False, False),
    "c1_image": (False, False),
    "c2_t5": (False, False),
    "c3_notile": (False, False),
    "c4_spatial": (True, False),
    "c5_temporal": (False, True),
    "c6_both": (True, True),
}


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def file(golden: Callable[[str], Golden]) -> Golden:
    return golden("vae_a")


@pytest.fixture(scope="module")
def vae(file: Golden) -> CausalVAE:
    return golden_vae(file)


def encode(vae: CausalVAE, video: Tensor, mode: tuple[bool, bool]) -> Tensor:
    return run_tiled(vae.encode, video, Tiling.encode(vae.config, space=mode[0], time=mode[1]))


def decode(vae: CausalVAE, z: Tensor, mode: tuple[bool, bool]) -> Tensor:
    return run_tiled(vae.decode, z, Tiling.decode(vae.config, space=mode[0], time=mode[1]))


@pytest.mark.parametrize("case", MODES)
def test_golden_encode_and_decode(file: Golden, vae: CausalVAE, case: str) -> None:
    inputs, outputs, mode = file.group(f"{case}.in"), file.group(f"{case}.out"), MODES[case]
    if "video" in inputs:
        moments = encode(vae, inputs["video"], mode)
        mean, logvar = moments.chunk(2, dim=1)
        assert_golden(moments, outputs["moments"], ATOL)
        assert_golden(mean, outputs["mean"], ATOL)
        assert_golden(logvar.clamp(-30, 20), outputs["logvar"], ATOL)
    assert_golden(decode(vae, inputs["z"], mode), outputs["decoded"], ATOL)


def test_golden_intermediates(file: Golden, vae: CausalVAE) -> None:
    names = {"enc.out": "encoder", "dec.post_quant_conv": "post_quant_conv"}
    for side, path in (("enc", "encoder"), ("dec", "decoder")):
        names[f"{side}.conv_in"] = f"{path}.conv_in"
        names[f"{side}.mid_block"] = f"{path}.mid_block"
        names[f"{side}.mid_block.resnet0"] = f"{path}.mid_block.resnets.0"
        names[f"{side}.mid_block.attn_tokens"] = f"{path}.mid_block.attentions.0"
    names |= {f"enc.down{i}": f"encoder.down_blocks.{i}" for i in range(4)}
    names |= {f"dec.up{i}": f"decoder.up_blocks.{i}" for i in range(4)}
    got: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _args: Any, output: Tensor) -> None:
        got[name] = output.flatten(2).transpose(1, 2) if name.endswith("tokens") else output

    hooks = [
        vae.get_submodule(path).register_forward_hook(functools.partial(keep, name))
        for name, path in names.items()
    ]
    vae.encode(file.tensors["c0_small.in.video"])
    vae.decode(file.tensors["c0_small.in.z"])
    for hook in hooks:
        hook.remove()

    expected = {k: v for k, v in file.group("c0_small.out").items() if k.startswith(("enc.", "dec."))}
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert_golden(got[name], value, ATOL, name)


def test_full_size_keys(manifest: Callable[[str], dict[str, Any]]) -> None:
    with torch.device("meta"):
        vae = CausalVAE(MODELS["HYVideo-T/2"].vae)
    assert {k: list(v.shape) for k, v in vae.state_dict().items()} == {
        k: shape for k, (shape, _) in manifest("vae_original").items()
    }


@pytest.mark.parametrize(
    ("latents", "calls", "shapes"),
    [
        ((33, 90, 160), 84, 12),
        ((33, 68, 120), 45, 8),
        ((17, 32, 32), 2, 2),
        ((25, 32, 32), 2, 2),
        ((16, 32, 32), 1, 1),
    ],
)
def test_tiles_of_the_published_sizes(latents: tuple[int, int, int], calls: int, shapes: int) -> None:
    tiles = Tiling.decode(MODELS["HYVideo-T/2"].vae).tile_shapes(latents)
    assert len(tiles) == calls
    assert len(set(tiles)) <= shapes
    assert max(tiles) <= (17, 32, 32)


def test_every_announced_tile_runs_and_reports(vae: CausalVAE) -> None:
    z = torch.zeros(1, 16, 9, 6, 4)
    tiling = Tiling.decode(vae.config)
    seen: list[tuple[int, ...]] = []
    reports: list[tuple[int, int]] = []

    def fn(tile: Tensor) -> Tensor:
        seen.append(tuple(tile.shape[2:]))
        return vae.decode(tile)

    run_tiled(fn, z, tiling, lambda done, total: reports.append((done, total)))
    assert seen == tiling.tile_shapes((9, 6, 4))
    assert reports == [(i + 1, len(seen)) for i in range(len(seen))]


@pytest.mark.parametrize("mode", [(False, False), (True, True)])
def test_equals_diffusers(file: Golden, vae: CausalVAE, mode: tuple[bool, bool]) -> None:
    from diffusers import AutoencoderKLHunyuanVideo

    c = vae.config
    oracle = AutoencoderKLHunyuanVideo(
        block_out_channels=c.block_channels,
        layers_per_block=c.layers_per_block,
        norm_num_groups=c.norm_groups,
    ).eval()
    oracle.load_state_dict(vae.state_dict())
    oracle.use_tiling, oracle.use_framewise_decoding = mode
    oracle.tile_sample_min_height = oracle.tile_sample_min_width = c.sample_size
    oracle.tile_sample_stride_height = oracle.tile_sample_stride_width = c.sample_size * 3 // 4
    oracle.tile_sample_min_num_frames, oracle.tile_sample_stride_num_frames = 16, 12
    z = file.tensors["c6_both.in.z"]
    expected = oracle.decode(z).sample
    assert_golden(decode(vae, z, mode), expected, ATOL)
