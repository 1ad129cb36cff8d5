"""Which engines the flags of a command ask for, and where they are kept."""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import ModelConfig
from hyvideo_rt.engine_set import EngineSet, Target, specs_of
from hyvideo_rt.engines.backends import BACKENDS, TENSORRT, Run
from hyvideo_rt.engines.recipes import recipe_for
from hyvideo_rt.engines.spec import MAX_TEXT, BackendName, EngineSpec
from hyvideo_rt.engines.spec import Precision as EnginePrecision
from hyvideo_rt.engines.store import Engine, EngineStore
from hyvideo_rt.engines.target import device_name, target_of
from hyvideo_rt.errors import EngineError, InvalidRequest
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.pipeline import Precision

MakeEngines = Callable[[HunyuanVideoDiT, CausalVAE], EngineSet]
NAMES: dict[torch.dtype, EnginePrecision] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}


def store_root(args: argparse.Namespace) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(args.engine_dir or os.environ.get("HYVIDEO_ENGINE_DIR") or cache / "hyvideo-rt" / "engines")


def open_store(args: argparse.Namespace) -> EngineStore:
    """The folder that was named and the user's key; both are made if they are not there."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    key = os.environ.get("HYVIDEO_ENGINE_KEY") or config / "hyvideo-rt" / "engine-key"
    return EngineStore(store_root(args), Path(key))


def target_for(
    backend: BackendName,
    precision: Precision,
    device: torch.device,
    attention: str = "sdpa",
    *,
    insisted: bool = False,
) -> Target:
    """Engines for this device in these precisions; attention is the name of a backend of it.

    Only Inductor's engines call one; torch's own is compiled with the rest. Raises InvalidRequest for a
    precision that no engine can have, and where another attention is insisted on than engines have.
    """
    if insisted and backend != "inductor":
        raise InvalidRequest(
            f"got --attention {attention} for engines of {backend}, which have their own\n"
            f"  leave it out, or take --backend inductor or eager"
        )
    if precision.fp8 and backend not in TENSORRT:
        raise InvalidRequest(
            f"got --use-fp8 for engines of {backend}; only those of TensorRT compute in 8 bits so far\n"
            f"  leave it out, or take --backend eager"
        )
    dit: EnginePrecision = "fp8" if precision.fp8 else NAMES[precision.dit]
    called = attention if backend == "inductor" and attention != "sdpa" else ""
    return Target(backend, target_of(device), dit, NAMES[precision.vae], precision.wide, called)


def best_backend(device: torch.device) -> BackendName:
    """By the recipe for this device; Inductor, which runs anywhere, for one that has none."""
    recipe = recipe_for(device_name(device))
    return recipe.backend if recipe else "inductor"


def choose_engines(
    args: argparse.Namespace,
    config: ModelConfig,
    buckets: Sequence[Bucket],
    precision: Precision,
    device: torch.device,
    attention: str,
) -> MakeEngines | None:
    """The engines of the first backend that has them, those of `buckets` already loaded. None is eager.

    A backend that was named must have all of these sizes. `auto` takes one that has any of them; what it has
    not runs eager then, at every size. Which it is, is said.
    """
    impossible = args.text_len > MAX_TEXT or not store_root(args).exists()
    if args.backend == "eager" or (args.backend == "auto" and (impossible or args.fp8_products)):
        return None
    if args.fp8_products:
        raise InvalidRequest(
            f"got --fp8-products with --backend {args.backend}: it is for what runs without engines\n"
            f"  leave it out: engines built with --use-fp8 multiply in 8 bits"
        )
    if args.text_len > MAX_TEXT:
        raise InvalidRequest(
            f"got --text-len {args.text_len} for engines, which read at most {MAX_TEXT} tokens\n"
            f"  take --backend eager"
        )
    store, reasons = open_store(args), []
    for backend in _candidates(args.backend, device):
        try:
            insisted = args.attention != "auto"
            target = target_for(backend, precision, device, attention, insisted=insisted)
            load = functools.cache(functools.partial(load_engine, store, device))
            built = functools.cache(functools.partial(is_built, store, device, config, target))
            ready = [b for b in buckets if built(b)] or buckets[:1] if args.backend == "auto" else buckets
            for bucket in ready:
                for spec in specs_of(config, bucket, target):
                    load(spec)
        except (EngineError, InvalidRequest) as error:
            if args.backend != "auto":
                raise
            reasons.append(str(error).splitlines()[0])
            continue
        print(f"engines of {backend} for {', '.join(map(str, ready))}", file=sys.stderr)
        make = functools.partial(EngineSet, config, target, load=load)
        return functools.partial(make, covers=built) if args.backend == "auto" else make
    print(f"eager: {reasons[0]}", file=sys.stderr)
    return None


def load_engine(store: EngineStore, device: torch.device, spec: EngineSpec) -> Run:
    """Raises EngineError."""
    engine = _find(store, device, spec)
    return BACKENDS[spec.backend].load(engine.path, engine.manifest.inputs, engine.manifest.outputs)


def is_built(
    store: EngineStore, device: torch.device, config: ModelConfig, target: Target, bucket: Bucket
) -> bool:
    """Whether all that a size needs is in the store and would load."""
    specs = specs_of(config, bucket, target)
    try:
        return all(store.has(spec) for spec in specs) and all(_find(store, device, spec) for spec in specs)
    except EngineError:
        return False


def _find(store: EngineStore, device: torch.device, spec: EngineSpec) -> Engine:
    backend = BACKENDS[spec.backend]
    return store.load(spec, backend.source(), backend.libraries(device))


def _candidates(asked: str, device: torch.device) -> Iterator[BackendName]:
    """What was asked for; for `auto` the best backend first."""
    best = best_backend(device)
    if asked == "auto":
        yield best
    yield from (name for name in BACKENDS if name == asked or (asked == "auto" and name != best))
