"""TensorRT-RTX engines for GPUs that are elsewhere, built here: tiny and full size, each past the gate."""

import pytest
import torch

from hyvideo_rt.buckets import OFFICIAL_PRESETS, TINY_PRESETS
from hyvideo_rt.config import MODELS
from hyvideo_rt.engine_set import Target, specs_of, tile_spec
from hyvideo_rt.engines.spec import Component, EngineSpec, Precision
from hyvideo_rt.engines.store import EngineStore
from hyvideo_rt.errors import BuildFailed
from hyvideo_rt.export.build import Builder
from hyvideo_rt.export.programs import program_of

FULL, TINY, CPU = MODELS["HYVideo-T/2-cfgdistill"], MODELS["tiny"], torch.device("cpu")
# Byte 32 of a plan names the compute capabilities it runs on (TensorRT-RTX 1.7.1, undocumented).
CAPABILITY_BYTE = {"sm89": 0x08, "sm120": 0x10}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    folder = tmp_path_factory.mktemp("store")
    return EngineStore(folder / "engines", folder / "key")


def target(sm: str, precision: Precision) -> Target:
    return Target("tensorrt_rtx", sm, precision, "fp16")


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_blocks_of_all_official_sizes(store: EngineStore, precision: Precision) -> None:
    """Five numbers of tokens, two GPUs: `build` raises for what does not pass the gate."""
    builder = Builder(FULL, store, CPU)
    wanted = dict.fromkeys(
        spec
        for sm in ("sm89", "sm120")
        for bucket in OFFICIAL_PRESETS.values()
        for spec in specs_of(FULL, bucket, target(sm, precision))
        if spec.component != "vae_decoder_tile"
    )
    assert len(wanted) == 2 * 5 * 2
    for spec in wanted:
        engine, new = builder.build(spec)
        manifest = engine.manifest
        assert new
        assert manifest.parity["where"] == "onnx"
        assert manifest.size_bytes < 5e6  # no weights: those of a block are 280 MB and more
        assert engine.path.read_bytes()[32] == CAPABILITY_BYTE[spec.target]
        assert manifest.scratch_bytes is not None
        assert 5e8 < manifest.scratch_bytes < 2e10
        tokens = {each.shape[1] for each in manifest.inputs if each.name in ("img", "x")}
        assert tokens == {spec.shape[0] + (256 if spec.component == "single_block" else 0)}


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_the_embedded_models_engines(store: EngineStore, precision: Precision) -> None:
    builder = Builder(TINY, store, CPU)
    for sm in ("sm89", "sm120"):
        for spec in specs_of(TINY, TINY_PRESETS["tiny-square"], target(sm, precision)):
            engine, _ = builder.build(spec)
            assert engine.manifest.parity["where"] == "onnx"


def test_a_full_size_tile_of_the_vae(store: EngineStore) -> None:
    spec = tile_spec(FULL, (9, 18, 16), target("sm89", "bf16"))
    engine, _ = Builder(FULL, store, CPU).build(spec)
    assert engine.manifest.size_bytes < 2e7


@pytest.mark.parametrize("component", ["double_block", "single_block"])
def test_attention_that_is_not_fused_is_not_stored(store: EngineStore, component: Component) -> None:
    """fp32, for which TensorRT has no fused attention."""
    spec = next(
        s
        for s in specs_of(TINY, TINY_PRESETS["tiny-square"], target("sm89", "fp32"))
        if s.component == component
    )
    with pytest.raises(BuildFailed, match="its attention is 0 fused kernels instead of 1"):
        Builder(TINY, store, CPU).build(spec)
    assert spec.name not in {path.name for path in store.root.iterdir()}


def test_hopper_is_refused_with_what_to_do(store: EngineStore) -> None:
    (spec, *_) = specs_of(TINY, TINY_PRESETS["tiny-square"], target("sm90", "bf16"))
    with pytest.raises(BuildFailed, match=r"8\.0, 8\.6, 8\.9 and 12\.0"):
        Builder(TINY, store, CPU).build(spec)


def test_programs_for_onnx_count_what_is_not_padding() -> None:
    spec = EngineSpec("single_block", "0" * 64, (80, 256), "fp32", "openvino", "cpu")
    assert program_of(spec, TINY).inputs[-1].name == "valid"
