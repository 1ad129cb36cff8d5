"""Which operators the flags of a command ask for."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from hyvideo_rt.attention import choose_attention
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.kernels.attention_backends import BACKENDS, joint_attention_by
from hyvideo_rt.kernels.ops import REFERENCE, Ops


def choose_ops(args: argparse.Namespace, device: torch.device) -> Ops:
    """Raises InvalidRequest for what this machine cannot run; on a GPU, what it is, is said."""
    if args.attention not in ("auto", *BACKENDS):
        names = ", ".join(BACKENDS)
        raise InvalidRequest(f"got --attention {args.attention}, expected auto or one of {names}")
    if args.kernels == "triton" and device.type != "cuda":
        raise InvalidRequest("got --kernels triton without a GPU\n  leave it out: a CPU runs the reference")
    name, attend = choose_attention(args.attention, device, attention_cache())
    if device.type == "cuda":
        kernels = "reference" if args.kernels == "reference" else "triton"
        print(f"kernels {kernels}, attention {name}", file=sys.stderr)
        if kernels == "triton":
            from hyvideo_rt.kernels.triton_ops import triton_ops

            return triton_ops(name, attend)
    if name == "sdpa":
        return REFERENCE
    return replace(REFERENCE, name=f"reference, {name}", joint_attention=joint_attention_by(attend))


def attention_cache() -> Path:
    """The file of verdicts about attention libraries."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "hyvideo-rt" / "attention.json"
