"""`hyvideo-rt generate`: from flags to files."""

import argparse
import dataclasses
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.load import load_pipeline
from hyvideo_rt.cli.model_choice import choose_checkpoint, uses_tiny
from hyvideo_rt.cli.upstream_flags import check_fixed_flags, notices
from hyvideo_rt.config import sampling_defaults
from hyvideo_rt.errors import InvalidRequest, OutputError
from hyvideo_rt.pipeline import Pipeline, pick_device
from hyvideo_rt.plan import free_bytes
from hyvideo_rt.sampling import SamplingParams, resolve_seeds
from hyvideo_rt.video import (
    SHEET_COLUMNS,
    Video,
    check_sheet_path,
    evenly_spaced,
    output_path,
    save_contact_sheet,
    save_mp4,
    save_png,
)


def generate(args: argparse.Namespace) -> int:
    """Everything that can be refused is refused before the weights are read."""
    check_fixed_flags(args)
    for notice in notices(args):
        print(notice, file=sys.stderr)
    prompts = read_prompts(args)
    folder = Path(args.save_path + (f"_{args.save_path_suffix}" if args.save_path_suffix else ""))
    _require_writable(folder)
    sheet = check_sheet_path(Path(args.contact_sheet)) if args.contact_sheet else None
    checkpoint = choose_checkpoint(args)
    params = sampling_params(args, *sampling_defaults(checkpoint.config))
    seeds = resolve_seeds(args.seed, args.num_videos)
    device = pick_device(args.device)
    pipeline = load_pipeline(args, checkpoint, device, [params.bucket], free_bytes(device))
    rows = []
    for prompt in prompts:
        for seed in seeds:
            video = _with_bar(pipeline, prompt, dataclasses.replace(params, seed=seed))
            path = save(video, folder)
            _report(video, path, as_json=args.json)
            if sheet:
                rows.append(evenly_spaced(video, SHEET_COLUMNS))
    if sheet:
        save_contact_sheet(rows, sheet)
    return 0


def read_prompts(args: argparse.Namespace) -> list[str]:
    """The prompt, or the lines of a file that are neither empty nor comments (#)."""
    if args.prompt is not None:
        return [args.prompt]
    try:
        text = sys.stdin.read() if args.prompts_file == "-" else Path(args.prompts_file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"cannot read prompts from {args.prompts_file}: {error}\n"
            f"  give a UTF-8 text file, one prompt per line"
        ) from error
    prompts = [line.strip() for line in text.splitlines()]
    prompts = [prompt for prompt in prompts if prompt and not prompt.startswith("#")]
    if not prompts:
        raise InvalidRequest(f"got no prompt in {args.prompts_file}; expected one per line")
    return prompts


def sampling_params(args: argparse.Namespace, bucket: Bucket, steps: int) -> SamplingParams:
    """What the flags say, and the model's own size and steps where they say nothing."""
    return SamplingParams(
        bucket=_bucket(args, bucket),
        seed=0,
        num_inference_steps=steps if args.infer_steps is None else args.infer_steps,
        guidance_scale=args.embedded_cfg_scale,
        true_cfg_scale=args.cfg_scale,
        negative_prompt=args.neg_prompt,
        flow_shift=args.flow_shift,
        flow_reverse=args.flow_reverse,
    )


def _bucket(args: argparse.Namespace, default: Bucket) -> Bucket:
    if args.preset:
        if args.video_size or args.video_length:
            raise InvalidRequest("got --preset with --video-size or --video-length\n  give one or the other")
        bucket = Bucket.parse(args.preset)
    else:
        sides = args.video_size or [default.height, default.width]
        if len(sides) > 2:
            raise InvalidRequest(f"got --video-size with {len(sides)} numbers; expected height and width")
        frames = default.num_frames if args.video_length is None else args.video_length
        bucket = Bucket(sides[0], sides[-1], frames)
    if uses_tiny(args) and args.model != "tiny" and bucket.num_tokens > 2000:
        raise InvalidRequest(
            f"got {bucket}, but there are no weights in ./ckpts and the tiny model is made for {default}\n"
            f"  put the published weights into ./ckpts or name their folder with --model-base; "
            f"--model tiny runs the tiny model at any size"
        )
    return bucket


def save(video: Video, folder: Path) -> Path:
    """An MP4 under the original's naming, or a PNG of a single frame."""
    still = len(video.frames) == 1
    seed = int(video.metadata["seed"])
    path = output_path(folder, video.prompt, seed, ".png" if still else ".mp4", datetime.now())
    (save_png if still else save_mp4)(video, path)
    return path


def _with_bar(pipeline: Pipeline, prompt: str, params: SamplingParams) -> Video:
    """A bar per stage with steps and time left, on a terminal."""
    bar: tqdm[Any] | None = None

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal bar
        if done == 0:
            if bar is not None:
                bar.close()
            bar = tqdm(total=total, desc=f"{stage:7}", disable=None, file=sys.stderr, leave=False)
        elif bar is not None:
            bar.update(done - bar.n)

    try:
        return pipeline.generate(prompt, params, progress)
    finally:
        if bar is not None:
            bar.close()


def _report(video: Video, path: Path, as_json: bool) -> None:
    if dropped := video.metadata.get("dropped_tokens"):
        print(f"the prompt is {dropped} tokens too long: its end was not read", file=sys.stderr)
    if as_json:
        print(json.dumps({"path": str(path), **video.metadata, "seconds": dict(video.timings_s)}), flush=True)
    else:
        seconds = ", ".join(f"{stage} {value:.2f} s" for stage, value in video.timings_s.items())
        print(f"{path}\n  {seconds}", flush=True)


def _require_writable(folder: Path) -> None:
    """Before minutes of work: the folder, or the nearest one above it that exists, takes new files."""
    existing: Path = next(
        parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists()
    )
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write to {folder}: {existing} takes no new files\n  choose another --save-path"
        )
