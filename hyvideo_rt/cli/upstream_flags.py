"""Flags of the original `sample_video.py` that choose nothing here: fixed values, and flags without effect.

They are accepted so that a documented command runs; a value that would mean another model is an error.
"""

import argparse
from collections.abc import Iterator

from hyvideo_rt.errors import InvalidRequest

# The only value of each that the published models know.
FIXED: dict[str, str] = {
    "latent-channels": "16",
    "rope-theta": "256",
    "vae": "884-16c-hy",
    "text-encoder": "llm",
    "tokenizer": "llm",
    "text-states-dim": "4096",
    "prompt-template": "dit-llm-encode",
    "prompt-template-video": "dit-llm-encode-video",
    "text-encoder-2": "clipL",
    "tokenizer-2": "clipL",
    "text-states-dim-2": "768",
    "text-len-2": "77",
    "denoise-type": "flow",
    "flow-solver": "euler",
    "batch-size": "1",
    "ulysses-degree": "1",
    "ring-degree": "1",
}
WHY_FIXED: dict[str, str] = {
    "batch-size": "use --num-videos or --prompts-file for several videos",
    "ulysses-degree": "this version runs on one GPU",
    "ring-degree": "this version runs on one GPU",
}
# What happens instead. The first group did nothing in the original either.
WITHOUT_EFFECT: dict[str, str] = {
    "use-linear-quadratic-schedule": "the original never read it",
    "linear-schedule-end": "the original never read it",
    "name-suffix": "the original never read it",
    "seed-type": "the original never read it",
    "reproduce": "a seed always gives the same noise",
    "model-resolution": "the weights' folder decides",
    "disable-autocast": "each component computes in its own precision",
}
SWITCHES = {"use-linear-quadratic-schedule", "reproduce", "disable-autocast"}


def add_fixed_and_ignored_flags(parser: argparse.ArgumentParser) -> None:
    for name in FIXED:
        parser.add_argument(*_spellings(name), dest=name, default=None, help=argparse.SUPPRESS)
    for name in WITHOUT_EFFECT:
        if name in SWITCHES:
            parser.add_argument(*_spellings(name), dest=name, action="store_true", help=argparse.SUPPRESS)
        else:
            parser.add_argument(*_spellings(name), dest=name, default=None, help=argparse.SUPPRESS)
    parser.add_argument(
        "--vae-tiling", action="store_true", help=argparse.SUPPRESS
    )  # always on, there and here


def check_fixed_flags(args: argparse.Namespace) -> None:
    """Raises InvalidRequest for a value that would mean another model than the published ones."""
    for name, value in FIXED.items():
        got = getattr(args, name)
        if got is not None and got != value:
            why = WHY_FIXED.get(name, "leave the flag out")
            raise InvalidRequest(f"got --{name} {got}; expected {value}\n  {why}")


def notices(args: argparse.Namespace) -> Iterator[str]:
    """One line for every flag given that changes nothing."""
    for name, reason in WITHOUT_EFFECT.items():
        if getattr(args, name) not in (None, False):
            yield f"--{name} has no effect: {reason}"


def _spellings(name: str) -> list[str]:
    """The documented multi-GPU command spells its flags with underscores."""
    return [f"--{name}", f"--{name.replace('-', '_')}"] if "degree" in name else [f"--{name}"]
