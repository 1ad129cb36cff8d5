"""`hyvideo-rt build`: the engines of some sizes, one after the other, for this machine or for other GPUs."""

import argparse
import sys

import torch
from tqdm import tqdm

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import best_backend, open_store, target_for
from hyvideo_rt.cli.model_choice import choose_checkpoint, choose_precision
from hyvideo_rt.cli.ops_choice import chosen_attention
from hyvideo_rt.config import MODELS, ModelConfig, sampling_defaults
from hyvideo_rt.engine_set import Target, specs_of
from hyvideo_rt.engines.manifest import Manifest
from hyvideo_rt.engines.recipes import Recipe, recipe_of
from hyvideo_rt.engines.spec import EngineSpec, Precision
from hyvideo_rt.engines.target import target_of
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.export.build import Builder
from hyvideo_rt.pipeline import pick_device

PUBLISHED = "HYVideo-T/2-cfgdistill"


def build(args: argparse.Namespace) -> int:
    device = pick_device(args.device)
    config, specs = _elsewhere(args) if args.sku else _here(args, device)
    wanted = [spec for spec in specs if not args.component or spec.component in args.component]
    store = open_store(args)
    builder = Builder(config, store, device)
    with tqdm(wanted, unit="engine", disable=None, file=sys.stderr, leave=False) as bar:
        for spec in bar:
            bar.set_description(spec.component)
            engine, new = builder.build(spec)
            bar.write(_line(engine.manifest, new), sys.stderr)
    unverified = sum(spec.target != target_of(device) for spec in wanted)
    if unverified:
        print(
            f"{unverified} engines are for other devices: none has run. What was checked is the graph, on a "
            f"CPU in fp32 and at a reduced size, and the kernels that the builder chose.",
            file=sys.stderr,
        )
    print(store.root)
    return 0


def _here(args: argparse.Namespace, device: torch.device) -> tuple[ModelConfig, list[EngineSpec]]:
    config = choose_checkpoint(args).config
    backend = args.backend or best_backend(device)
    insisted = args.attention != "auto"
    precision = choose_precision(args, device)
    attention, _ = chosen_attention(args, config.dit, precision.dit, device)
    target = target_for(backend, precision, device, attention, insisted=insisted)
    presets = args.preset or [str(sampling_defaults(config)[0])]
    return config, _specs(config, presets, [target])


def _elsewhere(args: argparse.Namespace) -> tuple[ModelConfig, list[EngineSpec]]:
    """Engines hold no weights, so none are needed: for the published model unless another is named."""
    config = MODELS[args.model or PUBLISHED]
    recipes = [recipe_of(sku) for sku in dict.fromkeys(args.sku)]
    targets = list(dict.fromkeys(_target(recipe, args) for recipe in recipes))
    presets = args.preset or list(dict.fromkeys(preset for recipe in recipes for preset in recipe.presets))
    return config, _specs(config, presets, targets)


def _target(recipe: Recipe, args: argparse.Namespace) -> Target:
    backend = args.backend or recipe.backend
    if backend != "tensorrt_rtx":
        raise InvalidRequest(
            f"got --sku {recipe.sku}, whose engines are of {backend}: only the GPU itself can build those\n"
            f"  run `hyvideo-rt build` there"
        )
    dit: Precision = "fp8" if args.use_fp8 else args.precision or recipe.dit
    wide = recipe.wide if dit == "fp8" else ()
    return Target(backend, recipe.target, dit, args.vae_precision or recipe.vae, wide)


def _specs(config: ModelConfig, presets: list[str], targets: list[Target]) -> list[EngineSpec]:
    buckets = [Bucket.parse(name) for name in presets]
    return list(
        dict.fromkeys(
            spec for target in targets for bucket in buckets for spec in specs_of(config, bucket, target)
        )
    )


def _line(manifest: Manifest, new: bool) -> str:
    parity = manifest.parity
    error = f"{parity['engine_error']:.1e} of {parity['budget']:.1e} allowed"
    if parity["where"] != "device":
        error = f"of the {parity['where']} graph {error}"
    scratch = f", scratch {manifest.scratch_bytes / 1e9:.2f} GB" if manifest.scratch_bytes else ""
    words = f"built in {manifest.build_s:.1f} s" if new else "was there"
    return f"{manifest.spec.name}: {words}, {manifest.size_bytes / 1e6:.1f} MB{scratch}, error {error}"
