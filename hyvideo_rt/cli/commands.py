"""What each command does once its flags are parsed. Only results go to standard output."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from hyvideo_rt.buckets import PRESETS, TINY_PRESETS, Bucket
from hyvideo_rt.cli.bench import bench
from hyvideo_rt.cli.model_choice import choose_precision
from hyvideo_rt.config import MODELS
from hyvideo_rt.errors import HyVideoError


def run(args: argparse.Namespace) -> int:
    table: dict[str, Callable[[argparse.Namespace], int]] = {
        "generate": _generate,
        "serve": _serve,
        "ui": _ui,
        "presets": _presets,
        "plan": _plan,
        "convert": _convert,
        "quantise": _quantise,
        "build": _build,
        "engines": _engines,
        "bench": bench,
        "doctor": _doctor,
    }
    return table[args.command](args)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _generate(args: argparse.Namespace) -> int:
    from hyvideo_rt.cli.generate import generate

    return generate(args)


def _serve(args: argparse.Namespace) -> int:
    try:
        from hyvideo_rt.cli.serve import serve
    except ModuleNotFoundError as error:
        raise HyVideoError(
            f"got no module {error.name!r}, which the server needs\n  pip install 'hyvideo-rt[serve]'"
        ) from error
    return serve(args)


def _ui(args: argparse.Namespace) -> int:
    from hyvideo_rt.cli.ui import ui

    return ui(args)


def _presets(args: argparse.Namespace) -> int:
    import torch

    from hyvideo_rt.pipeline import Precision
    from hyvideo_rt.plan import gib, make_plan

    rows = []
    for name, bucket in PRESETS.items():
        config = MODELS[model_of(bucket)]
        row: dict[str, object] = {
            "preset": name,
            "size": str(bucket),
            "latents": "x".join(map(str, bucket.latent_shape)),
            "tokens": bucket.num_tokens,
            "tflop/step": round(config.dit.flops_per_step(bucket) / 1e12, 3),
        }
        gpu = torch.device("cuda")
        resident = Precision.default(gpu)
        small = dataclasses.replace(resident, fp8=True)
        for column, precision, offload in (
            ("bf16", resident, False),
            ("bf16 offload", resident, True),
            ("fp8 offload", small, True),
        ):
            peak = make_plan(config, bucket, precision, gpu, offload=offload).peak_bytes
            row[column] = peak if args.json else gib(peak)
        rows.append(row)
    print(json.dumps(rows, indent=2) if args.json else format_table(rows))
    return 0


def _plan(args: argparse.Namespace) -> int:
    import torch

    from hyvideo_rt.engines.recipes import recipe_of
    from hyvideo_rt.pipeline import pick_device
    from hyvideo_rt.plan import GIB, fitting_plan, free_bytes, gib

    bucket = Bucket.parse(args.preset)
    recipe = recipe_of(args.sku) if args.sku else None
    elsewhere_gib = recipe.memory_gib if recipe else args.memory
    args.use_fp8 |= recipe is not None and recipe.dit == "fp8"
    device = torch.device("cuda") if elsewhere_gib else pick_device(args.device)
    budget = int(elsewhere_gib * GIB) if elsewhere_gib else free_bytes(device)
    plan = fitting_plan(
        MODELS[args.model or model_of(bucket)],
        bucket,
        choose_precision(args, device, recipe),
        device,
        offload=args.use_cpu_offload,
        budget_bytes=budget,
    )
    if args.json:
        print(json.dumps(dataclasses.asdict(plan) | {"peak_bytes": plan.peak_bytes, "budget_bytes": budget}))
        return 0
    print(f"{bucket} on {device}: {'weights rest on the host' if plan.offload else 'all resident'}")
    for name, size in plan.weights.items():
        print(f"  weights of {name:8} {gib(size):>10}")
    for stage, size in plan.stages.items():
        print(f"  peak of {stage:11} {gib(size):>10}")
    print(f"  fits: {gib(plan.peak_bytes)} of {gib(budget)}")
    return 0


def model_of(bucket: Bucket) -> str:
    """The model that a size is planned for when none is named."""
    return "tiny" if bucket in TINY_PRESETS.values() else "HYVideo-T/2-cfgdistill"


def _convert(args: argparse.Namespace) -> int:
    from hyvideo_rt.cli.model_choice import embedded_tiny
    from hyvideo_rt.weights.checkpoint import Checkpoint
    from hyvideo_rt.weights.convert import convert

    source = (
        embedded_tiny()
        if args.source == "tiny"
        else Checkpoint.open(
            args.source,
            dit_weight=Path(args.dit_weight) if args.dit_weight else None,
            load_key=args.load_key,
            revision=args.revision,
        )
    )
    with tqdm(total=1, unit="B", unit_scale=True, desc="convert", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        convert(source, Path(args.target), args.layout, progress=progress)
    print(args.target)
    return 0


def _quantise(args: argparse.Namespace) -> int:
    from hyvideo_rt.cli.quantise import quantise_weights

    return quantise_weights(args)


def _build(args: argparse.Namespace) -> int:
    from hyvideo_rt.cli.build import build

    return build(args)


def _engines(args: argparse.Namespace) -> int:
    from hyvideo_rt.cli.engines import engines

    return engines(args)


def _doctor(args: argparse.Namespace) -> int:
    from hyvideo_rt.doctor import examine, format_findings

    findings = examine(Path(args.save_path))
    if args.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        print(format_findings(findings))
    return 0


def format_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Columns aligned under their names; numbers to the right."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    right = [isinstance(value, int | float) for value in rows[0].values()]
    lines = []
    for line in cells:
        padded = (
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(line, widths, right, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
