"""`hyvideo-rt build`: the engines of some sizes, one after the other."""

import argparse
import sys

from tqdm import tqdm

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import open_store, target_for
from hyvideo_rt.cli.model_choice import choose_checkpoint, choose_precision
from hyvideo_rt.config import sampling_defaults
from hyvideo_rt.engine_set import specs_of
from hyvideo_rt.export.build import build as build_engine
from hyvideo_rt.pipeline import pick_device


def build(args: argparse.Namespace) -> int:
    config = choose_checkpoint(args).config
    device = pick_device(args.device)
    target = target_for(choose_precision(args, device), device)
    buckets = [Bucket.parse(name) for name in args.preset or [str(sampling_defaults(config)[0])]]
    specs = dict.fromkeys(spec for bucket in buckets for spec in specs_of(config, bucket, target))
    wanted = [spec for spec in specs if not args.component or spec.component in args.component]
    store = open_store(args)
    with tqdm(total=len(wanted), unit="engine", disable=None, file=sys.stderr, leave=False) as bar:
        for spec in wanted:
            bar.set_description(spec.component)
            engine, new = build_engine(spec, config, store, device)
            manifest = engine.manifest
            error = f"{manifest.parity['engine_error']:.1e} of {manifest.parity['budget']:.1e} allowed"
            words = f"built in {manifest.build_s:.0f} s" if new else "was there"
            bar.write(f"{spec.name}: {words}, {manifest.size_bytes / 1e6:.1f} MB, error {error}", sys.stderr)
            bar.update()
    print(store.root)
    return 0
