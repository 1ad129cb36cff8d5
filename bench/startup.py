"""From the start of Python to the first step, against diffusers: `python -m hyvideo_rt.bench.startup`.

Each run is a fresh process that imports, loads the embedded model, encodes a prompt and takes one step. Files
are in the page cache. Processes take turns.
"""

import argparse
import functools
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from hyvideo_rt.bench.conditions import conditions
from hyvideo_rt.bench.timing import interleave

SCRIPTS = {
    "hyvideo_rt": """
import torch
from importlib.resources import files
from pathlib import Path
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.errors import Cancelled
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.weights.checkpoint import Checkpoint

def stop_after_first_step(stage, done, total):
    if (stage, done) == ("denoise", 1):
        raise Cancelled

folder = Path(str(files("hyvideo_rt") / "tiny_model"))
pipeline = Pipeline.load(Checkpoint.open(folder), torch.device("cpu"))
params = SamplingParams(Bucket(64, 64, 17), seed=0, num_inference_steps=20)
try:
    pipeline.generate("a red circle", params, stop_after_first_step)
except Cancelled:
    print("one step")
""",
    "diffusers": """
import torch
from importlib.resources import files
from diffusers import HunyuanVideoPipeline

class Stop(Exception):
    pass

def stop_after_first_step(pipe, i, t, kwargs):
    raise Stop

pipe = HunyuanVideoPipeline.from_pretrained(files("hyvideo_rt") / "tiny_model", dtype=torch.float32)
try:
    pipe(prompt="a red circle", height=64, width=64, num_frames=17, num_inference_steps=20,
         callback_on_step_end=stop_after_first_step)
except Stop:
    print("one step")
""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    contestants = {name: functools.partial(run_script, script) for name, script in SCRIPTS.items()}
    timings = interleave(contestants, args.runs)
    ratio = timings["diffusers"].median_s / timings["hyvideo_rt"].median_s
    for name, timing in timings.items():
        print(f"{name:10} {timing.median_s:6.2f} s ({timing.p20_s:.2f}-{timing.p80_s:.2f})")
    print(f"ratio {ratio:.2f}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "conditions": conditions(torch.device("cpu"), weights="tiny"),
            "startup": {name: asdict(timing) for name, timing in timings.items()}
            | {"ratio": round(ratio, 3)},
        }
        args.out.write_text(json.dumps(result, indent=2) + "\n")


def run_script(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if done.returncode or "one step" not in done.stdout:
        raise RuntimeError(f"a contestant failed:\n{done.stderr}")


if __name__ == "__main__":
    main()
