"""`hyvideo-rt COMMAND`: parses, runs one function of `commands`, turns errors into a message and a status."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import get_args

from hyvideo_rt import __version__
from hyvideo_rt.cli.bench import BENCHMARKS
from hyvideo_rt.cli.flags import (
    BACKENDS,
    add_attention,
    add_compute,
    add_engine_dir,
    add_model,
    add_precision,
)
from hyvideo_rt.cli.serve_flags import add_serve
from hyvideo_rt.cli.ui import add_ui
from hyvideo_rt.cli.upstream_flags import add_fixed_and_ignored_flags
from hyvideo_rt.config import MODELS
from hyvideo_rt.engines.spec import Component
from hyvideo_rt.errors import HyVideoError, InvalidRequest

COMPONENTS = get_args(Component)
BAD_REQUEST, FAILED, INTERRUPTED = 2, 1, 130  # exit statuses; argparse uses 2 as well


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)  # a service manager's stop cleans up like Ctrl-C
    # Activations of gigabytes in many sizes: segments that grow leave no holes (before torch is imported).
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    from hyvideo_rt.cli import commands

    try:
        return commands.run(args)
    except KeyboardInterrupt:
        print("interrupted: nothing half-written is left", file=sys.stderr)
        return INTERRUPTED
    except HyVideoError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return BAD_REQUEST if isinstance(error, InvalidRequest) else FAILED


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyvideo-rt",
        description="The compiled serving runtime for HunyuanVideo. "
        "Without weights it uses an embedded tiny model of the same architecture.",
    )
    parser.add_argument("--version", action="version", version=f"hyvideo-rt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_generate(commands.add_parser("generate", help="make videos from prompts"))
    add_serve(commands.add_parser("serve", help="answer requests for videos over HTTP"))
    add_ui(commands.add_parser("ui", help="the web page of a server"))
    _add_presets(commands.add_parser("presets", help="the sizes, with tokens, FLOPs and memory"))
    _add_plan(commands.add_parser("plan", help="whether a video fits, before anything is loaded"))
    _add_convert(commands.add_parser("convert", help="write weights in the diffusers or the original layout"))
    _add_quantise(
        commands.add_parser("quantise", help="round the DiT's weights to 8 bits for its own videos")
    )
    _add_build(commands.add_parser("build", help="compile the engines of a size for this machine"))
    _add_engines(commands.add_parser("engines", help="what is built: list, verify, prune, inspect"))
    _add_bench(commands.add_parser("bench", help="measure: latency, its parts, memory, quality"))
    _add_doctor(commands.add_parser("doctor", help="what this machine can run, and what is missing"))
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes one MP4 per prompt and seed (a PNG for a single frame). Takes the flags of the original "
        "sample_video.py; those not listed here are accepted with their original values."
    )
    what = parser.add_argument_group("what to make")
    source = what.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", help="what the video shows")
    source.add_argument("--prompts-file", metavar="FILE", help="one prompt per line; - is standard input")
    what.add_argument("--preset", metavar="NAME", help="a size by name (see `presets`) or as 720x1280x129")
    what.add_argument("--video-size", type=int, nargs="+", metavar="PX", help="height and width, or one side")
    what.add_argument("--video-length", type=int, metavar="N", help="frames, 4n + 1; 1 makes an image")
    what.add_argument("--infer-steps", type=int, metavar="N", help="denoising steps (50; tiny model 20)")
    what.add_argument("--seed", type=int, help="of the first video; each further one adds 1 (random)")
    what.add_argument("--num-videos", type=int, default=1, metavar="N", help="videos per prompt")
    what.add_argument(
        "--embedded-cfg-scale",
        type=float,
        default=6.0,
        metavar="X",
        help="guidance of distilled weights (6.0)",
    )
    what.add_argument("--flow-shift", type=float, default=7.0, metavar="X", help="schedule shift (7.0)")
    what.add_argument(
        "--flow-reverse",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="noise to video, as the published weights need (on)",
    )
    what.add_argument("--cfg-scale", type=float, default=1.0, metavar="X", help="real CFG if above 1 (1.0)")
    what.add_argument("--neg-prompt", default="", metavar="TEXT", help="what to avoid under real CFG")
    add_model(parser)
    add_compute(parser)
    out = parser.add_argument_group("output")
    out.add_argument("--save-path", default="./results", metavar="FOLDER", help="where videos go (./results)")
    out.add_argument("--save-path-suffix", default="", metavar="TEXT", help="appended to the folder with _")
    out.add_argument("--contact-sheet", metavar="FILE", help="also write one image of frames of all videos")
    out.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    add_fixed_and_ignored_flags(parser)


def _add_presets(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Peak memory on a GPU: all resident; networks visiting from the host; 8-bit weights, too."
    )
    parser.add_argument("--json", action="store_true", help="print as JSON, memory in bytes")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.description = "Exit status 1 and a smaller preset if the video does not fit."
    parser.add_argument("--preset", required=True, metavar="NAME", help="a size by name, or as 720x1280x129")
    parser.add_argument("--model", choices=MODELS, help="(of the preset)")
    elsewhere = parser.add_mutually_exclusive_group()
    elsewhere.add_argument("--memory", type=float, metavar="GIB", help="of a GPU that is elsewhere")
    elsewhere.add_argument(
        "--sku", metavar="NAME", help="its memory and precision by its recipe: rtx4090, ..."
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    add_precision(parser.add_argument_group("device"))


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a folder of weights in either layout, a hub id, or `tiny`")
    parser.add_argument("target", help="the folder to make")
    parser.add_argument("--layout", choices=("diffusers", "original"), required=True)
    parser.add_argument("--revision", metavar="HASH", help="the hub id's commit, 40 hex digits")
    parser.add_argument("--dit-weight", metavar="FILE", help="the DiT's weights, if elsewhere")
    parser.add_argument("--load-key", choices=("module", "ema"), default="module", help="entry of a .pt file")


def _add_quantise(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Denoises the prompts with the full weights and rounds each layer of the blocks for what it is given "
        "there, which errs less than rounding each weight to its nearest. The result is used with "
        "`--use-fp8 --dit-weight TARGET`."
    )
    parser.add_argument("target", help="the folder to make")
    parser.add_argument(
        "--prompts-file", metavar="FILE", required=True, help="such as users write, one per line; - is stdin"
    )
    parser.add_argument("--preset", metavar="NAME", help="the size that is denoised (the model's own)")
    parser.add_argument("--infer-steps", type=int, metavar="N", help="denoising steps (50; tiny model 20)")
    add_attention(parser)
    add_model(parser)
    parser.set_defaults(
        **{"prompt": None, "backend": "eager", "kernels": "auto", "fp8_products": False, "engine_dir": None},
        **{"text_len": 256, "hidden_state_skip_layer": 2, "apply_final_norm": False},
    )


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compiles what videos of these sizes need and does not exist yet; each engine is compared with the "
        "network it was made from before it is stored. Interrupted, it goes on where it was."
    )
    parser.add_argument(
        "--preset", action="append", metavar="NAME", help="a size; may be repeated (the model's own)"
    )
    parser.add_argument(
        "--sku",
        action="append",
        metavar="NAME",
        help="for this GPU, which need not be here, such as rtx4090; may be repeated (this machine)",
    )
    parser.add_argument("--backend", choices=BACKENDS, help="(the best by the GPU's recipe)")
    add_attention(parser)
    parser.add_argument("--component", choices=COMPONENTS, action="append", help="only these (all)")
    add_engine_dir(parser)
    add_model(parser)


def _add_engines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("list", "verify", "prune", "inspect"),
        help="list; check every file; delete what this version loads on no device; show one manifest",
    )
    parser.add_argument("name", nargs="?", help="of the engine, for inspect")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    add_engine_dir(parser)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    width = max(map(len, BENCHMARKS))
    listed = "\n".join(f"  {name:{width}}  {what}" for name, what in BENCHMARKS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"Each has flags of its own: `hyvideo-rt bench NAME --help`.\n\n{listed}"
    parser.add_argument("name", choices=BENCHMARKS, metavar="NAME")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="of the benchmark")


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--save-path", default="./results", metavar="FOLDER", help="where videos would go")
    parser.add_argument("--json", action="store_true", help="print as JSON")


if __name__ == "__main__":
    sys.exit(main())
