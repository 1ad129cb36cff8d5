"""In an engine of Inductor, an attention that was named is one call, whoever computes it."""

import dataclasses
from pathlib import Path

import pytest
import torch

from hyvideo_rt.buckets import TINY_PRESETS
from hyvideo_rt.config import MODELS
from hyvideo_rt.engine_set import Target, block_spec
from hyvideo_rt.engines.backends import BACKENDS as ENGINES
from hyvideo_rt.engines.store import EngineStore
from hyvideo_rt.engines.target import target_of
from hyvideo_rt.export.build import Builder
from hyvideo_rt.export.parity import random_case
from hyvideo_rt.export.programs import program_of, sizes_of
from hyvideo_rt.kernels import attention_backends
from hyvideo_rt.kernels.attention_backends import BACKENDS, Attend, joint_attention

TINY, CPU = MODELS["tiny"], torch.device("cpu")


def test_an_engine_calls_the_attention_that_it_was_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def loaded(name: str) -> Attend:
        asked.append(name)
        return BACKENDS[name].load()

    monkeypatch.setattr(attention_backends, "_loaded", loaded)
    target = Target("inductor", target_of(CPU), "fp32", "fp32", attention="math")
    spec = block_spec("single_block", TINY, TINY_PRESETS["tiny-square"], target)
    plain = block_spec(
        "single_block", TINY, TINY_PRESETS["tiny-square"], dataclasses.replace(target, attention="")
    )
    assert spec.digest != plain.digest
    store = EngineStore(tmp_path / "engines", tmp_path / "key")
    engine, _ = Builder(TINY, store, CPU).build(spec)
    inductor = ENGINES["inductor"]
    run = inductor.load(engine.path, engine.manifest.inputs, engine.manifest.outputs)
    program = program_of(spec, TINY)
    inputs, weights = random_case(program, sizes_of(spec, 9), CPU)
    asked.clear()
    with torch.inference_mode():
        (got,), (expected,) = run(*inputs, *weights), program(inputs, weights)
    assert asked == ["math"]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_the_operator_keeps_to_its_contract() -> None:
    q, k, v = torch.randn(3, 1, 5, 2, 8)
    torch.library.opcheck(joint_attention, (q, k, v, "math"), test_utils=("test_schema", "test_faketensor"))
    out = joint_attention(q, k, v, "sdpa")
    assert out.shape == (1, 5, 16)
    torch.testing.assert_close(out, joint_attention(q, k, v, "math"), atol=1e-6, rtol=0)
