"""Is the judge to be believed? Right on true clips, also damaged ones, and not fooled by wrong ones.

`python -m tiny.proof --clips 500 --json proof.json` prints one row per kind of clip: the share that the judge
calls wholly right for true clips, the share whose one fault it finds (and finds nothing else) for wrong ones.
"""

import argparse
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tiny.judge import judge, score
from tiny.palette import BACKGROUNDS, COLOURS, backgrounds_for
from tiny.render import render
from tiny.world import SHAPES, Scene, Thing, sample_scene

Frames = NDArray[np.uint8]
Sample = tuple[Scene, tuple[int, int, int]]  # with height, width, frames

SIZES = ((64, 64, 17), (64, 96, 17), (96, 64, 17), (64, 64, 33))
PROPERTIES = ("colour", "shape", "direction", "count")


def samples(num_clips: int, seed: int) -> Iterator[Sample]:
    """Scenes of both splits, a third with two things, at every size."""
    rng = Random(seed)
    for i in range(num_clips):
        yield sample_scene(rng, "heldout" if i % 2 else "train", two_things=1 / 3), SIZES[i // 2 % len(SIZES)]


def noisy(frames: Frames) -> Frames:
    """Gaussian noise of 6/255, another in every frame."""
    noise = np.random.default_rng(0).normal(0, 6, frames.shape)
    return np.asarray((frames + noise).round().clip(0, 255), np.uint8)


def blurred(frames: Frames) -> Frames:
    """Mean of 3 x 3 pixels."""
    padded = np.pad(frames.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.asarray(windows.mean(axis=(-2, -1)).round(), np.uint8)


def compressed(frames: Frames) -> Frames:
    """JPEG of quality 75 with halved chroma."""
    return np.stack([_through_jpeg(frame) for frame in frames])


def _through_jpeg(frame: Frames) -> Frames:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=75, subsampling="4:2:0")
    return np.array(Image.open(buffer), np.uint8)


DAMAGES: dict[str, Callable[[Frames], Frames]] = {
    "clean": lambda frames: frames,
    "noise": noisy,
    "blur": blurred,
    "blur and noise": lambda frames: noisy(blurred(frames)),
    "jpeg": compressed,
}


def backwards(scene: Scene, frames: Frames, rng: Random) -> Frames:
    """For scenes where everything moves."""
    return frames[::-1]


def frozen(scene: Scene, frames: Frames, rng: Random) -> Frames:
    return np.repeat(frames[:1], len(frames), axis=0)


def recoloured(scene: Scene, frames: Frames, rng: Random) -> Frames:
    used = {thing.colour for thing in scene.things}
    visible = [c for c in COLOURS if c not in used and scene.background in backgrounds_for((c,))]
    return _with_first(scene, frames, replace(scene.things[0], colour=rng.choice(visible)))


def reshaped(scene: Scene, frames: Frames, rng: Random) -> Frames:
    used = {thing.shape for thing in scene.things}
    return _with_first(
        scene, frames, replace(scene.things[0], shape=rng.choice([s for s in SHAPES if s not in used]))
    )


def one_missing(scene: Scene, frames: Frames, rng: Random) -> Frames:
    return _render_like(frames, replace(scene, things=scene.things[1:]))


def half_way_gone(scene: Scene, frames: Frames, rng: Random) -> Frames:
    half = len(frames) // 2
    return np.concatenate([frames[:half], one_missing(scene, frames, rng)[half:]])


def noise_only(scene: Scene, frames: Frames, rng: Random) -> Frames:
    return np.random.default_rng(rng.getrandbits(32)).integers(0, 256, frames.shape, np.uint8)


def blank(scene: Scene, frames: Frames, rng: Random) -> Frames:
    return np.broadcast_to(np.array(BACKGROUNDS[scene.background], np.uint8), frames.shape)


def _with_first(scene: Scene, frames: Frames, thing: Thing) -> Frames:
    return _render_like(frames, replace(scene, things=(thing, *scene.things[1:])))


def _render_like(frames: Frames, scene: Scene) -> Frames:
    num_frames, height, width, _ = frames.shape
    return render(scene, height, width, num_frames)


# The fault, and the property that must be found wrong; None where nothing of the scene is left.
WRONGS: dict[str, tuple[Callable[[Scene, Frames, Random], Frames], str | None]] = {
    "backwards": (backwards, "direction"),
    "frozen": (frozen, "direction"),
    "recoloured": (recoloured, "colour"),
    "reshaped": (reshaped, "shape"),
    "one missing": (one_missing, "count"),
    "half-way gone": (half_way_gone, "direction"),
    "noise only": (noise_only, None),
    "blank": (blank, None),
}


def share_right(num_clips: int, damage: str, seed: int = 0) -> float:
    """Of true clips: how many have every property right, size and background included."""
    return float(
        np.mean(
            [
                all(score(judge(DAMAGES[damage](render(scene, *size))), scene).values())
                for scene, size in samples(num_clips, seed)
            ]
        )
    )


def share_noticed(num_clips: int, wrong: str, seed: int = 0) -> float:
    """Of clips with one fault: how many are scored wrong in that property and right in the others."""
    spoil, fault = WRONGS[wrong]
    rng = Random(seed)
    moving = (sample for sample in samples(4 * num_clips, seed) if _all_move(sample[0]))
    chosen = [sample for sample, _ in zip(moving, range(num_clips), strict=False)]
    return float(
        np.mean([_noticed(scene, spoil(scene, render(scene, *size), rng), fault) for scene, size in chosen])
    )


def _all_move(scene: Scene) -> bool:
    return all(thing.motion != "still" for thing in scene.things)


def _noticed(scene: Scene, frames: Frames, fault: str | None) -> bool:
    scores = score(judge(frames), scene)
    if fault is None:
        return not any(scores[name] for name in ("colour", "shape", "direction"))
    untouched = [] if fault == "count" else [name for name in PROPERTIES if name != fault]
    return not scores["all"] and not scores[fault] and all(scores[name] for name in untouched)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=500, help="of each kind (default 500)")
    parser.add_argument("--json", type=Path, help="also write the shares to this file")
    args = parser.parse_args()
    shares = {
        "clips": args.clips,
        "right": {name: share_right(args.clips, name) for name in DAMAGES},
        "noticed": {name: share_noticed(args.clips, name) for name in WRONGS},
    }
    for kind in ("right", "noticed"):
        for name, share in shares[kind].items():
            print(f"{name:>16}  {100 * share:6.2f} % {kind}")
    if args.json:
        args.json.write_text(json.dumps(shares, indent=2) + "\n")


if __name__ == "__main__":
    main()
