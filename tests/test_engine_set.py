"""Engines of the embedded model, built here: whole videos against the networks themselves, by preset."""

import functools
import multiprocessing
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hyvideo_rt.buckets import TINY_PRESETS, Bucket
from hyvideo_rt.config import MODELS
from hyvideo_rt.engine_set import EngineSet, Target, block_spec, specs_of
from hyvideo_rt.engines.backends import BACKENDS, Run
from hyvideo_rt.engines.spec import BackendName, EngineSpec
from hyvideo_rt.engines.spec import Precision as EnginePrecision
from hyvideo_rt.engines.store import EngineStore
from hyvideo_rt.engines.target import target_of
from hyvideo_rt.errors import EngineMismatch
from hyvideo_rt.export.build import Builder
from hyvideo_rt.export.programs import program_of
from hyvideo_rt.models.dit import block_weights
from hyvideo_rt.models.linear import Fp8Linear
from hyvideo_rt.models.vae import VAEDecoding
from hyvideo_rt.pipeline import Pipeline, Precision
from hyvideo_rt.sampling import SamplingParams, denoise, initial_noise, make_sigmas
from hyvideo_rt.weights.checkpoint import Checkpoint

pytestmark = pytest.mark.timeout(1200)  # six builds of a minute or so each
TINY, CPU = MODELS["tiny"], torch.device("cpu")
CHECKPOINT = Checkpoint.open(Path(str(files("hyvideo_rt") / "tiny_model")))
PRESETS = [TINY_PRESETS[name] for name in ("tiny-square", "tiny-square-long", "tiny-landscape")]
PROMPT = "a red circle moves right on a white background"
EXACT = Precision(torch.float64, torch.float64, torch.float64, torch.float64)


@pytest.fixture(scope="module", params=["inductor", "openvino"])
def target(request: pytest.FixtureRequest) -> Target:
    backend: BackendName = request.param
    return Target(backend, target_of(CPU), "fp32", "fp32")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, target: Target) -> EngineStore:
    """Holding all engines of these presets."""
    store = _store_in(tmp_path_factory.mktemp("store"))
    specs = dict.fromkeys(spec for bucket in PRESETS for spec in specs_of(TINY, bucket, target))
    longest_first = sorted(specs, key=lambda spec: spec.component != "vae_decoder_tile")
    build = functools.partial(_build, store.root.parent)
    if target.backend == "inductor":  # its compiler takes a minute and keeps one core busy
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as builders:
            new = list(builders.map(build, longest_first))
    else:
        new = [build(spec) for spec in longest_first]
    assert all(new)
    return store


def _store_in(folder: Path) -> EngineStore:
    return EngineStore(folder / "engines", folder / "key")


def _build(folder: Path, spec: EngineSpec) -> bool:
    """Whether it is new."""
    return Builder(TINY, _store_in(folder), CPU).build(spec)[1]


def load(store: EngineStore, spec: EngineSpec) -> Run:
    backend = BACKENDS[spec.backend]
    engine = store.load(spec, backend.source(), backend.libraries(CPU))
    return backend.load(engine.path, engine.manifest.inputs, engine.manifest.outputs)


@pytest.fixture(scope="module")
def compiled(store: EngineStore, target: Target) -> Pipeline:
    make = functools.partial(EngineSet, TINY, target, load=functools.partial(load, store))
    return Pipeline.load(CHECKPOINT, CPU, engines=make)


@torch.inference_mode()
def pictures(pipeline: Pipeline, bucket: Bucket) -> Tensor:
    params = SamplingParams(bucket, seed=3, num_inference_steps=4)
    sigmas = make_sigmas(params)
    text, negative = pipeline.encode(PROMPT, params)
    latents = denoise(pipeline.predictor(text, negative, params, sigmas), initial_noise(bucket, 3), sigmas)
    return torch.cat(list(pipeline.decode(latents)), dim=2)


@torch.inference_mode()
def velocity(pipeline: Pipeline, bucket: Bucket) -> Tensor:
    """The first step's: whole videos of few steps turn a small difference into another picture."""
    params = SamplingParams(bucket, seed=3, num_inference_steps=4)
    sigmas = make_sigmas(params)
    text, negative = pipeline.encode(PROMPT, params)
    return pipeline.predictor(text, negative, params, sigmas)(initial_noise(bucket, 3), 0)


def test_whole_videos_are_as_exact_as_the_networks_own(compiled: Pipeline, target: Target) -> None:
    """Presets swapped in one process, and back; the budget is the networks' own error in fp32, twice."""
    eager, exact = Pipeline.load(CHECKPOINT, CPU), Pipeline.load(CHECKPOINT, CPU, EXACT)
    for bucket in (*PRESETS, PRESETS[0]):
        reference = pictures(exact, bucket)
        own = (pictures(eager, bucket) - reference).abs().max()
        got = (pictures(compiled, bucket) - reference).abs().max()
        assert reference.std() > 1e-3
        assert got <= 2 * own + 1e-6
    assert compiled.identity["backend"] == target.backend


def test_an_engine_is_built_once(store: EngineStore, target: Target) -> None:
    spec = block_spec("single_block", TINY, PRESETS[0], target)
    _, new = Builder(TINY, store, CPU).build(spec)
    assert not new


def test_a_preset_without_engines_is_an_error_not_a_fallback(compiled: Pipeline) -> None:
    with pytest.raises(EngineMismatch, match="build it: hyvideo-rt build --component double_block"):
        pictures(compiled, Bucket(32, 32, 5))


LOADING = """
import sys, torch
from pathlib import Path
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import load_engine
from hyvideo_rt.config import MODELS
from hyvideo_rt.engine_set import Target, specs_of
from hyvideo_rt.engines.store import EngineStore
from hyvideo_rt.engines.target import target_of
cpu, folder = torch.device("cpu"), Path(sys.argv[1])
target = Target("inductor", target_of(cpu), "fp32", "fp32")
for spec in specs_of(MODELS["tiny"], Bucket(64, 64, 17), target):
    load_engine(EngineStore(folder / "engines", folder / "key"), cpu, spec)
print(sorted({"torch._dynamo", "torch._inductor.compile_fx", "onnx", "openvino"} & set(sys.modules)))
"""


def test_loading_engines_imports_no_compiler(store: EngineStore, target: Target) -> None:
    """It took 2.6 s of every process that only ran what was compiled before."""
    if target.backend == "inductor":
        done = subprocess.run(
            [sys.executable, "-c", LOADING, str(store.root.parent)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "[]"


def test_nothing_is_loaded_after_warm_up(store: EngineStore, target: Target) -> None:
    loaded: list[EngineSpec] = []

    def counting(spec: EngineSpec) -> Run:
        loaded.append(spec)
        return load(store, spec)

    make = functools.partial(EngineSet, TINY, target, load=counting)
    pipeline = Pipeline.load(CHECKPOINT, CPU, engines=make)
    assert pipeline.engines is not None
    pipeline.engines.warm(PRESETS)
    assert len(loaded) == len(set(loaded)) == 3 * len(PRESETS)
    for bucket in (*PRESETS, *PRESETS):
        pictures(pipeline, bucket)
    assert len(loaded) == 3 * len(PRESETS)


def storages(tensors: Sequence[Tensor]) -> dict[int, int]:
    """Bytes by address."""
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}


def test_all_presets_share_one_copy_of_the_weights(compiled: Pipeline, target: Target) -> None:
    """What the engines are called with are the networks' own tensors."""
    assert compiled.engines is not None
    compiled.engines.warm(PRESETS)
    seen: list[Tensor] = []

    def recording(spec: EngineSpec) -> "Recorder":
        return Recorder(seen)

    spied = EngineSet(TINY, target, compiled.dit, compiled.vae, recording)
    for bucket in PRESETS:
        run_once(spied, bucket)
    own = storages([*compiled.dit.state_dict().values(), *compiled.vae.state_dict().values()])
    bound = storages([tensor for tensor in seen if tensor.numel() > 1 and tensor.abs().max() > 0])
    assert bound.items() <= own.items()
    networks = (*compiled.dit.double_blocks, *compiled.dit.single_blocks)
    assert sum(bound.values()) >= sum(t.nbytes for block in networks for t in block_weights(block).values())


def run_once(engines: EngineSet, bucket: Bucket) -> None:
    """Every engine of a size with the weights of every block, on inputs that are none."""
    blocks, rope = engines.blocks(bucket), (torch.zeros(1), torch.zeros(1))
    for double in blocks.double:
        double(*[torch.zeros(1, 1)] * 4, rope, None)
    for single in blocks.single:
        single(*[torch.zeros(1, 1)] * 2, rope, None)
    engines.decode(torch.zeros(1, 16, *bucket.latent_shape))


class Recorder:
    """An engine that keeps what it was called with."""

    def __init__(self, seen: list[Tensor]) -> None:
        self.seen = seen

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        self.seen += tensors
        return [torch.zeros(1), torch.zeros(1)]


@pytest.mark.parametrize("name", ["double_blocks.0.img_attn_proj.bias", "single_blocks.2.linear2.weight"])
def test_a_weight_changed_in_place_changes_every_preset(compiled: Pipeline, name: str) -> None:
    weight = compiled.dit.get_parameter(name)
    before = [pictures(compiled, bucket) for bucket in PRESETS]
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.add_(0.5)
        for bucket, video in zip(PRESETS, before, strict=True):
            assert (pictures(compiled, bucket) - video).abs().max() > 1e-3
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert torch.equal(pictures(compiled, PRESETS[0]), before[0])


def program(spec: EngineSpec) -> Run:
    """The program that TensorRT compiles, called like its engine."""
    made = program_of(spec, TINY)
    first = len(made.inputs)
    return lambda *tensors: made(list(tensors[:first]), list(tensors[first:]))


def tensorrt_pipeline(precision: Precision, dit: EnginePrecision) -> Pipeline:
    """As with TensorRT's engines: text padded to 256 tokens, weights laid out [in, out]."""
    target = Target("tensorrt_rtx", target_of(CPU), dit, "fp32", precision.wide)
    return Pipeline.load(
        CHECKPOINT, CPU, precision, engines=functools.partial(EngineSet, TINY, target, load=program)
    )


def test_what_tensorrt_compiles_makes_the_same_video() -> None:
    eager = pictures(Pipeline.load(CHECKPOINT, CPU), PRESETS[0])
    got = pictures(tensorrt_pipeline(Precision.default(CPU), "fp32"), PRESETS[0])
    assert (got - eager).abs().max() < 1e-4


@pytest.mark.parametrize("wide", [(), ("attention", "img_mlp.fc2", "linear1")])
def test_fp8_engines_read_the_8_bit_weights_that_rest_on_the_device(wide: tuple[str, ...]) -> None:
    precision = replace(Precision.default(CPU), dit=torch.bfloat16, fp8=True, wide=wide)
    eager = velocity(Pipeline.load(CHECKPOINT, CPU, precision), PRESETS[0])
    pipeline = tensorrt_pipeline(precision, "fp8")
    assert pipeline.engines is not None
    difference = (velocity(pipeline, PRESETS[0]) - eager).norm() / eager.norm()
    assert 1e-3 < difference < 0.15  # products in 8 bits are others than widened ones, but not by much
    linear = pipeline.dit.single_blocks[0].get_submodule("linear1")
    assert isinstance(linear, nn.Linear if wide else Fp8Linear)


def test_engines_are_called_with_what_their_programs_name(target: Target) -> None:
    pipeline = Pipeline.load(CHECKPOINT, CPU)
    calls: dict[EngineSpec, list[Tensor]] = {}
    spied = EngineSet(
        TINY, target, pipeline.dit, pipeline.vae, lambda spec: Recorder(calls.setdefault(spec, []))
    )
    run_once(spied, PRESETS[0])
    modules = (pipeline.dit.double_blocks[0], pipeline.dit.single_blocks[0], VAEDecoding(pipeline.vae))
    for spec, module in zip(specs_of(TINY, PRESETS[0], target), modules, strict=True):
        program = program_of(spec, TINY)
        assert [weight.name for weight in program.weights] == [*block_weights(module)]
        first, last = len(program.inputs), len(program.inputs) + len(program.weights)
        assert [tuple(x.shape) for x in calls[spec][first:last]] == [each.shape for each in program.weights]
