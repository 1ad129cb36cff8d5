"""From flags to a pipeline that is ready, the one way for every command that makes videos."""

import argparse
import sys
from collections.abc import Sequence

import torch

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import choose_engines, is_built, open_store
from hyvideo_rt.cli.model_choice import choose_checkpoint, choose_precision, warm_sizes
from hyvideo_rt.cli.ops_choice import choose_ops, choose_products, chosen_attention
from hyvideo_rt.config import presets_of
from hyvideo_rt.pipeline import Pipeline, Precision, pick_device
from hyvideo_rt.plan import Plan, fitting_plan, free_bytes, gib
from hyvideo_rt.server.capabilities import Capabilities, precision_to_json
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
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # Triton launches on the current one, wherever its tensors are
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


def load_for_server(args: argparse.Namespace) -> tuple[Pipeline, Capabilities]:
    checkpoint, device = choose_checkpoint(args), pick_device(args.device)
    warm = warm_sizes(args.warm, checkpoint.config)
    budget_bytes = free_bytes(device)
    pipeline = load_pipeline(args, checkpoint, device, warm, budget_bytes)
    capabilities = Capabilities(
        device=str(device),
        backend=pipeline.engines.target.backend if pipeline.engines else "eager",
        built=_built(args, pipeline),
        eager=args.backend in ("auto", "eager"),
        offload=pipeline.offload,
        budget_bytes=budget_bytes,
        precision=precision_to_json(precision_for(args, device)),
        identity=pipeline.identity,
    )
    return pipeline, capabilities


def _built(args: argparse.Namespace, pipeline: Pipeline) -> tuple[str, ...]:
    """The named and the warm sizes that have all their engines."""
    engines = pipeline.engines
    if engines is None:
        return ()
    store = open_store(args)
    sizes = dict.fromkeys([*warm_sizes(args.warm, engines.config), *presets_of(engines.config).values()])
    return tuple(
        str(size) for size in sizes if is_built(store, pipeline.device, engines.config, engines.target, size)
    )


def _say_plan(plan: Plan, model: str, device: str) -> None:
    where = "text encoders and VAE visit from the host" if plan.offload else "all resident"
    print(f"{model}: {plan.bucket} on {device}, {where}, peak {gib(plan.peak_bytes)}", file=sys.stderr)
