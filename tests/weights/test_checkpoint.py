"""Whole checkpoints in both layouts: recognised, checked, loaded to the right values; and every fault."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import (
    PUBLISHED_HEADS,
    SMALL_HEADS,
    HeadersOnly,
    random_states,
    write_original,
    write_with_diffusers,
)
from torch import Tensor, nn

from hyvideo_rt.config import ModelConfig
from hyvideo_rt.errors import InvalidRequest, WeightsError
from hyvideo_rt.kernels.rope import rope_table
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.linear import Fp8Linear, dequantise_e4m3
from hyvideo_rt.weights.checkpoint import Checkpoint
from hyvideo_rt.weights.checkpoint_files import ORIGINAL_DIT, ORIGINAL_MODEL, ModelFiles
from hyvideo_rt.weights.layouts import Layout, same_names
from hyvideo_rt.weights.loading import check_tensors, quantise_e4m3
from hyvideo_rt.weights.tensor_files import TensorSource

Saved = tuple[Path, nn.Module, nn.Module]  # folder; diffusers' own transformer and VAE
STATES = random_states(PUBLISHED_HEADS)
DIT_PT = ORIGINAL_DIT.with_suffix(".pt")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    write_original(folder, PUBLISHED_HEADS, STATES, "model.")
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["guidance", "no guidance"])
def diffusers_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("diffusers")
    config = replace(SMALL_HEADS, dit=replace(SMALL_HEADS.dit, guidance_embed=request.param))
    transformer, vae = write_with_diffusers(folder, config)
    return folder, transformer, vae


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A copy of the original tree to damage."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def assert_same(module: nn.Module, state: dict[str, Tensor]) -> None:
    loaded = module.state_dict()
    assert loaded.keys() <= state.keys()
    for name, value in loaded.items():
        assert torch.equal(value, state[name]), name


def load_all(checkpoint: Checkpoint) -> dict[str, nn.Module]:
    return {
        "dit": checkpoint.load_dit("cpu", torch.float32),
        "vae": checkpoint.load_vae("cpu", torch.float32),
        "llm": checkpoint.load_llm("cpu", torch.float32, skip_layers=2),
        "clip": checkpoint.load_clip("cpu", torch.float32),
    }


@pytest.mark.parametrize("prefix", ["", "model.", "language_model.model.", "model.language_model."])
def test_original_tree_loads_what_was_saved(tmp_path: Path, prefix: str) -> None:
    write_original(tmp_path, PUBLISHED_HEADS, STATES, prefix)
    checkpoint = Checkpoint.open(tmp_path)
    assert (checkpoint.layout, checkpoint.config) == ("original", PUBLISHED_HEADS)
    assert checkpoint.name == tmp_path.name
    for component, module in load_all(checkpoint).items():
        assert_same(module, STATES[component])
    assert json.loads((checkpoint.llm_tokenizer / "tokenizer.json").read_text()) == {"of": "text_encoder"}
    assert json.loads((checkpoint.clip_tokenizer / "tokenizer.json").read_text()) == {"of": "text_encoder_2"}


def test_llm_layers_that_are_not_built_are_not_expected(original: Path) -> None:
    checkpoint = Checkpoint.open(original)
    assert len(checkpoint.load_llm("cpu", torch.float32, skip_layers=2).layers) == 2
    assert len(checkpoint.load_llm("cpu", torch.float32, skip_layers=0).layers) == 4


def test_diffusers_folder_gives_diffusers_outputs(
    diffusers_folder: Saved,
) -> None:
    folder, transformer, vae = diffusers_folder
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.layout == "diffusers"
    assert len(checkpoint.files.sources["dit"].files) > 1, "the shards are part of this test"
    ours = checkpoint.load_dit("cpu", torch.float32)
    config = checkpoint.config.dit
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 16, 2, 4, 6, generator=generator)
    text = torch.randn(1, 5, config.text_dim, generator=generator)
    pooled = torch.randn(1, config.pooled_dim, generator=generator)
    t, guidance = torch.tensor([700.0]), torch.tensor([6000.0]) if config.guidance_embed else None
    conditioning = ours.condition(t, text, pooled, guidance, torch.tensor([4]))
    out = ours(x, conditioning, rope_table((2, 2, 3), config.rope_dims, config.rope_theta))
    with torch.no_grad():
        mask = torch.tensor([[1, 1, 1, 1, 0]])
        expected = transformer(x, t, text, mask, pooled, guidance, return_dict=False)[0]
    assert expected.abs().mean() > 1e-3
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)
    z = torch.randn(1, 16, 2, 3, 4, generator=generator)
    with torch.no_grad():
        frames = vae.decode(z, return_dict=False)[0]  # type: ignore[operator]
    assert (checkpoint.load_vae("cpu", torch.float32).decode(z) - frames).abs().max() <= 5e-5


def test_diffusers_text_encoders_are_loaded_by_name(
    diffusers_folder: Saved,
) -> None:
    folder = diffusers_folder[0]
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.config.llm == SMALL_HEADS.llm
    assert checkpoint.config.clip == SMALL_HEADS.clip
    assert_same(
        checkpoint.load_llm("cpu", torch.float32), load_file(folder / "text_encoder" / "model.safetensors")
    )
    clip = load_file(folder / "text_encoder_2" / "model.safetensors")
    prefixed = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in clip.items()}
    assert_same(checkpoint.load_clip("cpu", torch.float32), prefixed)


def test_another_dit_in_a_diffusers_folder(original: Path, diffusers_folder: Saved) -> None:
    checkpoint = Checkpoint.open(diffusers_folder[0], dit_weight=original / DIT_PT)
    assert checkpoint.config.dit == PUBLISHED_HEADS.dit
    assert_same(checkpoint.load_dit("cpu", torch.float32), STATES["dit"])


def test_load_key_chooses_the_entry(copy: Path) -> None:
    ema = {name: tensor + 1 for name, tensor in STATES["dit"].items()}
    torch.save({"module": STATES["dit"], "ema": ema}, copy / DIT_PT)
    assert_same(Checkpoint.open(copy).load_dit("cpu", torch.float32), STATES["dit"])
    assert_same(Checkpoint.open(copy, load_key="ema").load_dit("cpu", torch.float32), ema)
    with pytest.raises(InvalidRequest, match="expected one of module, ema"):
        Checkpoint.open(copy, load_key="model")


def test_check_names_a_fault_in_any_component(copy: Path) -> None:
    Checkpoint.open(copy).check()
    path = copy / "text_encoder" / "model.safetensors"
    llm = load_file(path)
    del llm["model.layers.3.mlp.up_proj.weight"]
    save_file(llm, path)
    Checkpoint.open(copy).check(skip_layers=1)
    with pytest.raises(WeightsError, match=r"1 missing: model\.layers\.3\.mlp\.up_proj\.weight"):
        Checkpoint.open(copy).check(skip_layers=0)


def test_bytes_are_those_of_the_headers(original: Path) -> None:
    expected = sum(tensor.nbytes for tensor in STATES["dit"].values())
    assert Checkpoint.open(original).component_bytes["dit"] == expected


def test_fingerprint_follows_the_weights_not_the_place(original: Path, copy: Path) -> None:
    first = Checkpoint.open(original).fingerprint
    assert len(first) == 64
    assert Checkpoint.open(original).fingerprint == first
    assert Checkpoint.open(copy).fingerprint == first
    tuned = {name: tensor * 1.01 for name, tensor in STATES["dit"].items()}
    torch.save({"module": tuned}, copy / DIT_PT)
    assert Checkpoint.open(copy).fingerprint != first


def quantised_dit() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The DiT as upstream's fp8 pair has it."""
    weights = {name: tensor.bfloat16() for name, tensor in STATES["dit"].items()}
    scales = {}
    for name, tensor in list(weights.items()):
        if name.startswith(("double_blocks", "single_blocks")) and tensor.dim() == 2:
            weight, scales[name.removesuffix(".weight")] = quantise_e4m3(tensor.reshape(1, -1))
            weights[name] = weight.view_as(tensor)
    return weights, scales


def test_fp8_pair_and_quantised_at_load_hold_the_same(copy: Path, original: Path) -> None:
    weights, scales = quantised_dit()
    dit = copy / DIT_PT
    pair = dit.with_name("mp_rank_00_model_states_fp8.pt")
    torch.save({"module": weights}, pair)
    torch.save(scales, pair.with_name("mp_rank_00_model_states_fp8_map.pt"))
    bf16 = {name: tensor.bfloat16() for name, tensor in STATES["dit"].items()}
    torch.save({"module": bf16}, dit)
    from_pair = Checkpoint.open(copy, dit_weight=pair).load_dit("cpu", torch.bfloat16, fp8=True).state_dict()
    quantised = Checkpoint.open(copy).load_dit("cpu", torch.bfloat16, fp8=True).state_dict()
    assert len(scales) == 10 * 2 + 3 * 3
    assert sum(name.endswith(".scale") for name in from_pair) == len(scales)
    for name, value in from_pair.items():
        assert value.dtype == quantised[name].dtype, name
        assert value.shape == quantised[name].shape, name
        if name.removesuffix(".weight").removesuffix(".scale") not in scales:
            assert torch.equal(value.float(), quantised[name].float()), name
    for name, scale in scales.items():  # the pair's is one for all rows, ours is each row's own
        assert torch.equal(from_pair[f"{name}.weight"].float(), weights[f"{name}.weight"].float())
        assert torch.equal(from_pair[f"{name}.scale"], scale.repeat(len(from_pair[f"{name}.scale"])))
        assert quantised[f"{name}.scale"].max() == pytest.approx(scale.item())
        assert quantised[f"{name}.scale"].min() < scale
    dit.unlink()  # the pair alone is found, and can be widened
    wide = Checkpoint.open(copy).load_dit("cpu", torch.bfloat16).state_dict()
    name = "single_blocks.2.linear1"
    expected = dequantise_e4m3(weights[f"{name}.weight"], scales[name], torch.bfloat16)
    assert torch.equal(wide[f"{name}.weight"], expected)


def test_fp8_without_its_scales(copy: Path) -> None:
    weights, _ = quantised_dit()
    pair = (copy / DIT_PT).with_name("mp_rank_00_model_states_fp8.pt")
    torch.save({"module": weights}, pair)
    with pytest.raises(WeightsError, match=r"fp8 weights without mp_rank_00_model_states_fp8_map\.pt"):
        Checkpoint.open(copy, dit_weight=pair)


def test_fp8_of_a_diffusers_folder_is_quantised_after_joining(
    diffusers_folder: Saved,
) -> None:
    checkpoint = Checkpoint.open(diffusers_folder[0])
    wide = checkpoint.load_dit("cpu", torch.float32).state_dict()
    narrow = checkpoint.load_dit("cpu", torch.float32, fp8=True).state_dict()
    for name in ("double_blocks.1.img_attn_qkv", "single_blocks.0.linear1"):
        weight, scale = quantise_e4m3(wide[f"{name}.weight"])
        assert torch.equal(narrow[f"{name}.weight"].float(), weight.float())
        assert torch.equal(narrow[f"{name}.scale"], scale)


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("skip_layers", [0, 2])
def test_published_sizes_pass_the_check(
    manifest: Callable[[str], dict[str, Any]], layout: Layout, skip_layers: int
) -> None:
    dit = "dit_original_cfgdistill" if layout == "original" else "dit_diffusers_guidance"
    names = {"dit": dit, "vae": f"vae_{layout}", "llm": "text_encoder_llm", "clip": "text_encoder_2_clip"}
    sources = {
        component: TensorSource([HeadersOnly({key: shape for key, (shape, _) in manifest(name).items()})])
        for component, name in names.items()
    }
    files = ModelFiles(layout, layout, ModelConfig(), sources, Path(), Path())
    checkpoint = Checkpoint("published", files)
    checkpoint.check(skip_layers)
    assert checkpoint.component_bytes["dit"] == 2 * 12_821_012_544
    del files.sources["dit"].specs["final_layer.linear.bias" if layout == "original" else "proj_out.bias"]
    with pytest.raises(WeightsError, match=r"1 missing: (final_layer\.linear|proj_out)\.bias"):
        checkpoint.check(skip_layers)


def test_published_fp8_needs_320_scales(manifest: Callable[[str], dict[str, Any]]) -> None:
    shapes = {key: shape for key, (shape, _) in manifest("dit_original_cfgdistill").items()}
    linear = [k for k, v in shapes.items() if k.split("_")[0] in ("double", "single") and len(v) == 2]
    with torch.device("meta"):
        dit = HunyuanVideoDiT(ModelConfig().dit, block_linear=Fp8Linear)
    source = TensorSource([HeadersOnly(shapes, fp8=linear)])
    with pytest.raises(WeightsError, match=r"320 missing: .*\.scale.* and 312 more"):
        check_tensors(dit, source, same_names(shapes))
    scales = HeadersOnly({name.removesuffix("weight") + "scale": [1] for name in linear})
    check_tensors(dit, TensorSource([*source.files, scales]), same_names(shapes))


def unlink(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def edit(name: str, **values: object) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | values))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder / ORIGINAL_MODEL), "got no model; expected model_index.json"),
        (unlink(str(DIT_PT)), "got no transformer, expected one of"),
        (lambda folder: os.truncate(folder / DIT_PT, 0), "refused, nothing in it was run"),
        (unlink("text_encoder/model.safetensors"), "got neither model.safetensors nor"),
        (lambda folder: os.truncate(folder / "text_encoder/model.safetensors", 0), "got 0 bytes"),
        (unlink("text_encoder_2/config.json"), "config.json: cannot be read: No such file"),
        (lambda folder: (folder / "text_encoder/config.json").write_text("{"), "got no valid JSON"),
        (
            edit("text_encoder/config.json", hidden_size=64, num_attention_heads=8),
            "states of the LLM of size 64",
        ),
        (edit(f"{ORIGINAL_MODEL}/vae/config.json", latent_channels=8), "latents of size 8"),
        (
            lambda folder: (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}'),
            "got _class_name = 'FluxPipeline'",
        ),
    ],
)
def test_damaged_folders_are_refused(copy: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copy)
    with pytest.raises(WeightsError, match=message):
        Checkpoint.open(copy)


def test_missing_folder_and_missing_revision() -> None:
    with pytest.raises(WeightsError, match="got no folder /no/such/folder"):
        Checkpoint.open("/no/such/folder")
    for revision in (None, "main", "abc123"):
        with pytest.raises(InvalidRequest, match="a model of the hub needs a pinned one"):
            Checkpoint.open("org/name", revision=revision)


def test_local_folder_has_no_revision(original: Path) -> None:
    with pytest.raises(InvalidRequest, match="only hub models have one"):
        Checkpoint.open(original, revision="0" * 40)


OPEN_OFFLINE = """
import sys
from hyvideo_rt.weights.checkpoint import Checkpoint
from hyvideo_rt.errors import WeightsError
try:
    print(Checkpoint.open("org/name", revision="0" * 40).name)
except WeightsError as error:
    print("WeightsError:", error)
"""


@pytest.mark.parametrize("cached", [True, False])
def test_hub_model_without_network(tmp_path: Path, original: Path, cached: bool) -> None:
    if cached:
        snapshot = tmp_path / "models--org--name" / "snapshots" / ("0" * 40)
        shutil.copytree(original, snapshot)
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", OPEN_OFFLINE], env=env, capture_output=True, text=True, check=True
    )
    expected = "org/name" if cached else "WeightsError: org/name at 000"
    assert result.stdout.startswith(expected), result
