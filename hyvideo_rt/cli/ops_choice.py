"""Which operators the flags of a command ask for."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from hyvideo_rt.attention import Setting, choose_attention
from hyvideo_rt.config import DiTConfig
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.kernels.attention_backends import BACKENDS, Attend, joint_attention_by
from hyvideo_rt.kernels.ops import REFERENCE, Ops
from hyvideo_rt.pipeline import Precision


def chosen_attention(
    args: argparse.Namespace, config: DiTConfig, dtype: torch.dtype, device: torch.device
) -> tuple[str, Attend]:
    """Its name and the function. Raises InvalidRequest for one that does not work here."""
    if args.attention not in ("auto", *BACKENDS):
        names = ", ".join(BACKENDS)
        raise InvalidRequest(f"got --attention {args.attention}, expected auto or one of {names}")
    setting = Setting(device, dtype, config.head_dim)
    return choose_attention(args.attention, setting, attention_cache())


def choose_ops(kernels: str, attention: tuple[str, Attend], device: torch.device) -> Ops:
    """Raises InvalidRequest for what this machine cannot run; on a GPU, what it is, is said."""
    if kernels == "triton" and device.type != "cuda":
        raise InvalidRequest("got --kernels triton without a GPU\n  leave it out: a CPU runs the reference")
    name, attend = attention
    if device.type == "cuda":
        kernels = "reference" if kernels == "reference" else "triton"
        print(f"kernels {kernels}, attention {name}", file=sys.stderr)
        if kernels == "triton":
            from hyvideo_rt.kernels.triton_ops import triton_ops

            return triton_ops(name, attend)
    if name == "sdpa":
        return REFERENCE
    return replace(REFERENCE, name=f"reference, {name}", joint_attention=joint_attention_by(attend))


def choose_products(args: argparse.Namespace, precision: Precision, device: torch.device) -> Precision:
    """With --fp8-products, linear layers that multiply in 8 bits. Raises InvalidRequest where none can."""
    if not args.fp8_products:
        return precision
    if not precision.fp8:
        raise InvalidRequest("got --fp8-products without --use-fp8\n  give both")
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < (8, 9):
            raise InvalidRequest(
                f"got --fp8-products on a GPU of compute capability {capability[0]}.{capability[1]}, "
                f"expected 8.9 or newer\n  leave it out: --use-fp8 alone saves the memory"
            )
        if precision.dit != torch.bfloat16:
            raise InvalidRequest("got --fp8-products with another --precision than bf16\n  leave that out")
    return replace(precision, fp8_products=True)


def attention_cache() -> Path:
    """The file of verdicts about attention libraries."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "hyvideo-rt" / "attention.json"
