"""From flags to a pipeline that is ready, the one way for every command that makes videos."""

import argparse
import sys
from collections.abc import Sequence

import torch

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import choose_engines
from hyvideo_rt.cli.model_choice import choose_precision
from hyvideo_rt.cli.ops_choice import choose_ops, choose_products, chosen_attention
from hyvideo_rt.pipeline import Pipeline, Precision
from hyvideo_rt.plan import Plan, fitting_plan, gib
from hyvideo_rt.weights.checkpoint import Checkpoint


def precision_for(args: argparse.Namespace, device: torch.device) -> Precision:
    return choose_products(args, choose_precision(args, device), device)


def load_pipeline(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    device: torch.device,
    buckets: Sequence[Bucket],
    budget_bytes: int,
) -> Pipeline:
    """For videos of these sizes above all. Everything that can be refused is, before the weights are read."""
    precision = precision_for(args, device)
    plan = fitting_plan(
        checkpoint.config,
        max(buckets, key=lambda bucket: bucket.num_tokens),
        precision,
        device,
        offload=args.use_cpu_offload,
        budget_bytes=budget_bytes,
    )
    _say_plan(plan, checkpoint.name, device.type)
    attention = chosen_attention(args, checkpoint.config.dit, precision.dit, device)
    ops = choose_ops(args.kernels, attention, device)
    engines = choose_engines(args, checkpoint.config, buckets, precision, device, attention[0])
    return Pipeline.load(
        checkpoint,
        device,
        precision,
        offload=plan.offload,
        engines=engines,
        ops=ops,
        text_len=args.text_len,
        skip_layers=args.hidden_state_skip_layer,
        apply_final_norm=args.apply_final_norm,
    )


def _say_plan(plan: Plan, model: str, device: str) -> None:
    where = "text encoders and VAE visit from the host" if plan.offload else "all resident"
    print(f"{model}: {plan.bucket} on {device}, {where}, peak {gib(plan.peak_bytes)}", file=sys.stderr)
