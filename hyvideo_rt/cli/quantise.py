"""`hyvideo-rt quantise`: from flags to a DiT in 8 bits."""

import argparse
from pathlib import Path

from tqdm import tqdm

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.calibration import quantise
from hyvideo_rt.cli.generate import read_prompts
from hyvideo_rt.cli.load import load_pipeline
from hyvideo_rt.cli.model_choice import choose_checkpoint
from hyvideo_rt.config import sampling_defaults
from hyvideo_rt.engines.recipes import recipe_for
from hyvideo_rt.engines.target import device_name
from hyvideo_rt.errors import InvalidRequest, WeightsError
from hyvideo_rt.pipeline import pick_device
from hyvideo_rt.plan import free_bytes
from hyvideo_rt.sampling import SamplingParams


def quantise_weights(args: argparse.Namespace) -> int:
    """Everything that can be refused is refused before the weights are read."""
    if args.use_fp8:
        raise InvalidRequest("got --use-fp8; rounding begins with the full weights\n  leave it out")
    prompts = read_prompts(args)
    checkpoint = choose_checkpoint(args)
    if checkpoint.in_8_bits:
        raise WeightsError(
            f"{checkpoint.name}: got 8-bit weights, expected the full ones to round\n"
            f"  name those that they were made from"
        )
    bucket, steps = sampling_defaults(checkpoint.config)
    if args.preset:
        bucket = Bucket.parse(args.preset)
    params = SamplingParams(bucket, seed=0, num_inference_steps=args.infer_steps or steps)
    device = pick_device(args.device)
    pipeline = load_pipeline(args, checkpoint, device, [bucket], free_bytes(device))
    recipe = recipe_for(device_name(device))
    with tqdm(total=1, desc="quantise", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        wide = recipe.wide if recipe else ()
        quantise(pipeline, prompts, params, Path(args.target), wide=wide, progress=progress)
    print(args.target)
    return 0
