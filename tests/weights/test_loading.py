"""Checking and loading: every fault is named before data is read, and what arrives equals what was saved."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hyvideo_rt.errors import WeightsError
from hyvideo_rt.models.linear import Fp8Linear, dequantise_e4m3
from hyvideo_rt.weights.layouts import KeyMap, Piece, same_names
from hyvideo_rt.weights.loading import check_tensors, load_into, quantise_e4m3
from hyvideo_rt.weights.pickle_files import PickleFile
from hyvideo_rt.weights.safetensors_files import SafetensorsFile
from hyvideo_rt.weights.tensor_files import TensorSource


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def some_tensors(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {name: t.shape for name, t in on_meta().state_dict().items()}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def opened(path: Path) -> TensorSource:
    return TensorSource([PickleFile(path) if path.suffix == ".pt" else SafetensorsFile(path)])


def saved(tensors: Mapping[str, Tensor], path: Path) -> TensorSource:
    if path.suffix == ".pt":
        torch.save(dict(tensors), path)
    else:
        save_file(dict(tensors), path)
    return opened(path)


def loaded(source: TensorSource, keys: KeyMap | None = None, dtype: torch.dtype = torch.float32) -> nn.Module:
    module = on_meta()
    load_into(module, source, keys or same_names(module.state_dict()), device="cpu", dtype=dtype)
    return module


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_load_equals_torch_in_every_dtype(
    tmp_path: Path, suffix: str, stored: torch.dtype, dtype: torch.dtype
) -> None:
    tensors = some_tensors(stored)
    module = loaded(saved(tensors, tmp_path / f"model{suffix}"), dtype=dtype)
    for name, value in module.state_dict().items():
        assert torch.equal(value, tensors[name].to(dtype)), name
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


def test_pieces_are_joined_and_reordered(tmp_path: Path) -> None:
    tensors = some_tensors()
    weight = tensors.pop("0.weight")
    swapped = tensors.pop("0.bias").roll(2)
    source = saved(tensors | {"q": weight[:1], "kv": weight[1:], "b": swapped}, tmp_path / "x.safetensors")
    keys = {
        **same_names(tensors),
        "0.weight": (Piece("q", 0, 1, 1), Piece("kv", 0, 3, 3)),
        "0.bias": (Piece("b", 2, 4, 4), Piece("b", 0, 2, 4)),
    }
    module = loaded(source, keys)
    for name, value in module.state_dict().items():
        assert torch.equal(value, some_tensors()[name]), name


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_missing_unexpected_misshapen_and_mistyped_tensors_are_named(tmp_path: Path, suffix: str) -> None:
    tensors = some_tensors()
    del tensors["2.bias"]
    tensors["extra.bias"] = torch.ones(3)
    tensors["0.weight"] = torch.ones(4, 5)
    tensors["1.weight"] = torch.ones(4, dtype=torch.int64)
    source = saved(tensors, tmp_path / f"model{suffix}")
    with pytest.raises(WeightsError) as error:
        loaded(source)
    message = str(error.value)
    assert f"model{suffix}" in message
    assert "1 missing: 2.bias" in message
    assert "1 unexpected: extra.bias" in message
    assert "0.weight (got [4, 5], expected [4, 3])" in message
    assert "1.weight (got torch.int64, expected floating point)" in message


def test_long_lists_of_names_are_cut(tmp_path: Path) -> None:
    extra = {f"extra.{i}": torch.ones(1) for i in range(20)}
    with pytest.raises(WeightsError, match=r"20 unexpected: extra\.0, .* and 12 more"):
        loaded(saved(some_tensors() | extra, tmp_path / "x.safetensors"))


def test_only_patterns_given_are_ignored(tmp_path: Path) -> None:
    extra = {"lm_head.weight": torch.ones(1), "lm_head.weight2": torch.ones(1)}
    source = saved(some_tensors() | extra, tmp_path / "x.safetensors")
    module = on_meta()
    with pytest.raises(WeightsError, match=r"1 unexpected: lm_head\.weight2"):
        check_tensors(module, source, same_names(module.state_dict()), ignore=[r"lm_head\.weight"])


def test_checks_come_before_any_data_is_read(tmp_path: Path) -> None:
    tensors = some_tensors()
    del tensors["2.bias"]
    module = on_meta()
    with pytest.raises(WeightsError, match=r"2\.bias"):
        load_into(
            module,
            saved(tensors, tmp_path / "x.safetensors"),
            same_names(module.state_dict()),
            device="cpu",
            dtype=torch.float32,
        )
    assert all(p.is_meta for p in module.parameters())


def test_quantiser_and_dequantiser_are_the_originals(golden: Callable[[str], Any]) -> None:
    """It has one scale for all rows, so the matrix is one row to us."""
    t = golden("fp8_a").tensors
    weight, scale = quantise_e4m3(t["weight"].reshape(1, -1))
    weight = weight.view_as(t["weight"])
    assert torch.equal(scale, t["scale"].reshape(1))
    assert torch.equal(weight.float(), t["weight_fp8"].float())
    assert torch.equal(weight.float(), t["qdq"])
    assert torch.equal(dequantise_e4m3(weight, scale, torch.float32), t["dequant_fp32"])
    assert torch.equal(dequantise_e4m3(weight, scale, torch.bfloat16), t["dequant_bf16"])


def test_quantiser_of_zeros_and_of_large_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, scale = quantise_e4m3(torch.zeros(2, 3))
    assert torch.equal(dequantise_e4m3(weight, scale, torch.float32), torch.zeros(2, 3))
    large = torch.randn(50, 7, dtype=torch.bfloat16)
    whole, whole_scale = quantise_e4m3(large)
    monkeypatch.setattr("hyvideo_rt.weights.loading.QUANTISE_ELEMENTS", 20)
    parts, parts_scale = quantise_e4m3(large)
    assert torch.equal(whole.float(), parts.float())
    assert torch.equal(whole_scale, parts_scale)


def fp8_on_meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(Fp8Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def test_wide_weights_are_quantised_for_an_fp8_module(tmp_path: Path) -> None:
    tensors = some_tensors(torch.bfloat16)
    source = saved(tensors, tmp_path / "x.safetensors")
    module = fp8_on_meta()
    load_into(module, source, same_names(module.state_dict()), device="cpu", dtype=torch.bfloat16)
    weight, scale = quantise_e4m3(tensors["0.weight"])
    state = module.state_dict()
    assert torch.equal(state["0.weight"].float(), weight.float())
    assert torch.equal(state["0.scale"], scale)
    assert state["0.bias"].dtype == state["2.weight"].dtype == torch.bfloat16


@pytest.fixture
def fp8_pair(tmp_path: Path) -> TensorSource:
    """The original's two files: 8-bit weights, and scales under module paths, one for all rows."""
    tensors = some_tensors(torch.bfloat16)
    weight, scale = quantise_e4m3(tensors["0.weight"].reshape(1, -1))
    tensors["0.weight"] = weight.view_as(tensors["0.weight"])
    torch.save({"module": tensors}, tmp_path / "x_fp8.pt")
    torch.save({"0": scale}, tmp_path / "x_fp8_map.pt")
    weights = PickleFile(tmp_path / "x_fp8.pt", wrappers=("module", "ema"), key="module")
    return TensorSource([weights, PickleFile(tmp_path / "x_fp8_map.pt", suffix=".scale")])


def test_fp8_pair_loads_as_it_is_or_widened(fp8_pair: TensorSource) -> None:
    wide = some_tensors(torch.bfloat16)["0.weight"]
    weight, scale = quantise_e4m3(wide.reshape(1, -1))
    weight = weight.view_as(wide)
    module = fp8_on_meta()
    load_into(module, fp8_pair, same_names(module.state_dict()), device="cpu", dtype=torch.bfloat16)
    assert torch.equal(module.state_dict()["0.weight"].float(), weight.float())
    assert torch.equal(module.state_dict()["0.scale"], scale.repeat(4))
    plain = loaded(fp8_pair, dtype=torch.bfloat16).state_dict()["0.weight"]
    assert torch.equal(plain, dequantise_e4m3(weight, scale, torch.bfloat16))
    step = wide.abs().max() / 448 * 32  # half the spacing of the largest E4M3 values, and bf16's rounding
    assert 0 < (plain.float() - wide.float()).abs().max() < step


@pytest.mark.gpu
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("build", [on_meta, fp8_on_meta])
def test_gpu_gets_what_the_cpu_gets(
    tmp_path: Path, suffix: str, stored: torch.dtype, build: Callable[[], nn.Module]
) -> None:
    source = saved(some_tensors(stored), tmp_path / f"model{suffix}")
    states = []
    for device in ("cpu", "cuda"):
        module = build()
        load_into(module, source, same_names(module.state_dict()), device=device, dtype=torch.bfloat16)
        states.append(module.state_dict())
    for name, value in states[1].items():
        assert value.is_cuda, name
        assert value.dtype == states[0][name].dtype, name
        assert torch.equal(value.cpu().float(), states[0][name].float()), name


def test_fp8_weights_without_scales_are_named(fp8_pair: TensorSource) -> None:
    with pytest.raises(WeightsError, match=r"1 missing: 0\.scale"):
        loaded(TensorSource(fp8_pair.files[:1]))


def test_fp8_of_nan_is_named(tmp_path: Path) -> None:
    tensors = some_tensors()
    tensors["0.weight"][1, 1] = torch.nan
    module = fp8_on_meta()
    with pytest.raises(WeightsError, match=r"0\.weight holds NaN"):
        load_into(
            module,
            saved(tensors, tmp_path / "x.safetensors"),
            same_names(module.state_dict()),
            device="cpu",
            dtype=torch.float32,
        )
