"""Flags that several commands share: the model and its device, who computes, and where engines are."""

import argparse
from typing import get_args

from hyvideo_rt.config import MODELS
from hyvideo_rt.engines.spec import BackendName

DTYPES = ("fp32", "fp16", "bf16")
BACKENDS = get_args(BackendName)


def add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model and device")
    model.add_argument(
        "--model",
        choices=MODELS,
        help="refuse weights of another model; `tiny` takes the embedded one",
    )
    model.add_argument(
        "--model-base",
        default="ckpts",
        metavar="FOLDER",
        help="weights in either layout, or a hub id such as org/name (./ckpts; if absent, the tiny model)",
    )
    model.add_argument("--revision", metavar="HASH", help="the hub id's commit, 40 hex digits")
    model.add_argument("--dit-weight", metavar="FILE", help="the DiT's weights, if elsewhere")
    model.add_argument("--load-key", choices=("module", "ema"), default="module", help="entry of a .pt file")
    add_precision(model)


def add_compute(parser: argparse.ArgumentParser) -> None:
    """Who computes, and how prompts are read."""
    engines = parser.add_argument_group("engines")
    engines.add_argument(
        "--backend",
        choices=("auto", "eager", *BACKENDS),
        default="auto",
        help="who computes blocks and VAE; auto takes engines if all that the size needs are built (auto)",
    )
    engines.add_argument(
        "--kernels",
        choices=("auto", "reference", "triton"),
        default="auto",
        help="operators of what no engine computes: plain torch, or Triton's on a GPU (auto)",
    )
    add_attention(engines)
    engines.add_argument(
        "--fp8-products",
        action="store_true",
        help="with --use-fp8, outside engines: linear layers multiply in 8 bits (GPUs of 8.9 and newer)",
    )
    add_engine_dir(engines)
    text = parser.add_argument_group("text encoders")
    text.add_argument("--text-len", type=int, default=256, metavar="N", help="prompt tokens kept (256)")
    text.add_argument(
        "--hidden-state-skip-layer", type=int, default=2, metavar="N", help="last LLM layers unused (2)"
    )
    text.add_argument("--apply-final-norm", action="store_true", help="norm the LLM's state")


def add_engine_dir(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    group.add_argument(
        "--engine-dir",
        metavar="FOLDER",
        help="where engines are kept ($HYVIDEO_ENGINE_DIR, or hyvideo-rt/engines in the user's cache)",
    )


def add_attention(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--attention",
        default="auto",
        metavar="NAME",
        help="who computes it, eager and in engines of inductor: sdpa, cudnn, flash, efficient, math, fa3, "
        "fa4; in 8 bits, never chosen by auto: fa3-fp8, cudnn-fp8, sage (auto: the fastest that works)",
    )


def add_precision(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (auto)")
    group.add_argument("--precision", choices=DTYPES, help="of the DiT (bf16 on a GPU, fp32 on a CPU)")
    group.add_argument("--vae-precision", choices=DTYPES, help="(fp16 on a GPU, fp32 on a CPU)")
    group.add_argument("--text-encoder-precision", choices=DTYPES, help="(fp16 on a GPU, fp32 on a CPU)")
    group.add_argument("--text-encoder-precision-2", choices=DTYPES, help="(fp16 on a GPU, fp32 on a CPU)")
    group.add_argument("--use-fp8", action="store_true", help="8-bit weights in the DiT: half the memory")
    group.add_argument(
        "--use-cpu-offload", action="store_true", help="networks rest on the host, visit for their stage"
    )
