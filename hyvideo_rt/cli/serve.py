"""`hyvideo-rt serve`: from flags to the settings of a server, then the server."""

import argparse
import json
import os
import sys
from pathlib import Path

from hyvideo_rt.cli.keys import api_keys
from hyvideo_rt.cli.model_choice import choose_checkpoint, warm_sizes
from hyvideo_rt.cli.ui import page_command
from hyvideo_rt.config import MODELS, ModelConfig
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.pipeline import pick_device
from hyvideo_rt.server.run import serve as run
from hyvideo_rt.server.settings import GIB, Limits, Settings, WorkerSpec


def serve(args: argparse.Namespace) -> int:
    return run(settings_of(args))


def settings_of(args: argparse.Namespace) -> Settings:
    """Raises InvalidRequest. Takes the key out of the environment: no worker inherits it."""
    checkpoint = choose_checkpoint(args)
    config = checkpoint.config
    return Settings(
        data_dir=Path(args.data_dir),
        model=args.model or name_of(config, checkpoint.name),
        config=config,
        workers=tuple(_worker(args, device) for device in devices(args.device)),
        warm=warm_sizes(args.warm, config),
        host=args.host,
        port=args.port,
        api_keys=api_keys(os.environ.pop("HYVIDEO_API_KEY", ""), args.api_key_file),
        limits=Limits(
            queue_jobs=args.max_queue_jobs,
            queue_s=args.max_queue_seconds,
            job_s=args.max_job_seconds,
            overtake_s=args.max_overtake_seconds,
            watchdog_floor_s=args.watchdog_seconds,
            start_s=args.start_timeout,
            drain_s=args.drain_timeout,
            sync_s=args.sync_timeout,
            retention_s=args.retention_hours * 3600,
            min_free_bytes=int(args.min_free_gib * GIB),
        ),
        page=page_command() if args.ui else None,
    )


def name_of(config: ModelConfig, folder: str) -> str:
    """The name of a model that we know, else that of its folder."""
    return next((name for name, known in MODELS.items() if known == config), folder)


def devices(asked: str) -> list[str]:
    """`auto` is every GPU there is, else the CPU; several may be named with commas."""
    if asked == "auto":
        import torch

        count = torch.cuda.device_count()
        return [f"cuda:{i}" for i in range(count)] or ["cpu"]
    names = [str(pick_device(name.strip())) for name in asked.split(",")]
    if len(set(names)) < len(names):
        raise InvalidRequest(f"got --device {asked}; expected each device once")
    return names


def _worker(args: argparse.Namespace, device: str) -> WorkerSpec:
    """The flags as they were parsed, with one device."""
    flags = json.dumps({**vars(args), "device": device})
    return WorkerSpec(device, (sys.executable, "-m", "hyvideo_rt.cli.worker", flags))
