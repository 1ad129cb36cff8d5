"""Which weights, and in which precision, the flags of a command ask for."""

import argparse
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS, ModelConfig, sampling_defaults
from hyvideo_rt.errors import WeightsError

if TYPE_CHECKING:
    import torch

    from hyvideo_rt.engines.recipes import Recipe
    from hyvideo_rt.pipeline import Precision
    from hyvideo_rt.weights.checkpoint import Checkpoint


def choose_checkpoint(args: argparse.Namespace) -> "Checkpoint":
    """The weights that were named; `./ckpts` if it is there; else the embedded tiny model, and says so."""
    from hyvideo_rt.weights.checkpoint import Checkpoint

    dit_weight = Path(args.dit_weight) if args.dit_weight else None
    if args.model == "tiny":
        return embedded_tiny(dit_weight)
    if uses_tiny(args):
        print("no weights in ./ckpts: using the embedded tiny model", file=sys.stderr)
        return embedded_tiny()
    checkpoint = Checkpoint.open(
        args.model_base,
        dit_weight=dit_weight,
        load_key=args.load_key,
        revision=args.revision,
    )
    if args.model and checkpoint.config.dit != MODELS[args.model].dit:
        raise WeightsError(
            f"got weights of another model in {args.model_base}; expected {args.model}\n"
            f"  leave --model out to take the weights as they are"
        )
    return checkpoint


def uses_tiny(args: argparse.Namespace) -> bool:
    """Nothing was asked for and nothing lies in the default place."""
    nothing_named = args.model_base == "ckpts" and args.dit_weight is None
    return args.model == "tiny" or (nothing_named and args.model is None and not Path("ckpts").exists())


def embedded_tiny(dit_weight: Path | None = None) -> "Checkpoint":
    """With another DiT of the same shape, if one is named."""
    from hyvideo_rt.weights.checkpoint import Checkpoint

    return Checkpoint.open(Path(str(files("hyvideo_rt") / "tiny_model")), dit_weight=dit_weight)


def warm_sizes(asked: str | None, config: ModelConfig) -> tuple[Bucket, ...]:
    """The sizes that a server has ready, of a list with commas; the model's own by default."""
    if asked is None:
        return (sampling_defaults(config)[0],)
    return tuple(dict.fromkeys(Bucket.parse(name.strip()) for name in asked.split(",")))


def choose_precision(
    args: argparse.Namespace, device: "torch.device", recipe: "Recipe | None" = None
) -> "Precision":
    """The device's defaults, with what was asked for instead; recipe is that of a GPU that is elsewhere."""
    import dataclasses

    import torch

    from hyvideo_rt.engines.recipes import recipe_for
    from hyvideo_rt.engines.target import device_name
    from hyvideo_rt.pipeline import Precision

    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    asked = {
        "dit": args.precision,
        "vae": args.vae_precision,
        "llm": args.text_encoder_precision,
        "clip": args.text_encoder_precision_2,
    }
    changes = {name: dtypes[dtype] for name, dtype in asked.items() if dtype}
    if args.use_fp8 and recipe is None:
        recipe = recipe_for(device_name(device))
    return dataclasses.replace(
        Precision.default(device),
        **changes,
        fp8=args.use_fp8,
        wide=recipe.wide if recipe and args.use_fp8 else (),
        fp8_products=False,
    )
