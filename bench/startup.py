"""From the start of Python to a video, against diffusers: `python -m hyvideo_rt.bench.startup`.

Each run is a fresh process that imports, loads the embedded model, encodes a prompt, takes one step and ends
the video; ours a second time from engines that are built before; one only imports torch. Files are in the
page cache. Processes take turns. Memory is the process's own: at the end, and at most. diffusers compiled is
one run, its cache empty; a peer that does not run has its reason instead.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from hyvideo_rt.bench import limits
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.networks import embedded_flops, from_store
from hyvideo_rt.bench.timing import Ratio, Timing
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS
from hyvideo_rt.pipeline import Precision
from hyvideo_rt.sampling import SamplingParams

CPU, BUCKET, STEPS = torch.device("cpu"), Bucket(64, 64, 17), 20
FOLDER = Path(str(files("hyvideo_rt") / "tiny_model"))
PEERS = ("diffusers", "diffusers_compiled")
Marks = dict[str, float]  # of one process: seconds to the end of each phase, and bytes
PHASES = ("import_s", "load_s", "first_step_s", "video_s")
HEAD = """
import json, time
start = time.perf_counter()
marks, first = {}, []
def mark(name):
    marks[name] = time.perf_counter() - start
"""
TAIL = """
from hyvideo_rt.bench.memory import host_now, host_peak
print(json.dumps(marks | {"now": host_now(), "peak": host_peak()}))
"""
OURS = """
import torch
from importlib.resources import files
from pathlib import Path
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.weights.checkpoint import Checkpoint
mark("import_s")
folder, device = Path(str(files("hyvideo_rt") / "tiny_model")), torch.device("cpu")
checkpoint = Checkpoint.open(folder)
{engines}
pipeline = Pipeline.load(checkpoint, device, engines=engines)
mark("load_s")

def progress(stage, done, total):
    if (stage, done) == ("denoise", 1):
        mark("first_step_s")

params = SamplingParams(Bucket(64, 64, 17), seed=0, num_inference_steps=20)
pipeline.generate("a red circle", params, progress)
mark("video_s")
"""
FROM_STORE = """
from functools import partial
from hyvideo_rt.cli.engine_choice import load_engine, target_for
from hyvideo_rt.engine_set import EngineSet, specs_of
from hyvideo_rt.engines.store import EngineStore
from hyvideo_rt.pipeline import Precision
store = EngineStore(Path({folder!r}) / "engines", Path({folder!r}) / "key")
target = target_for("inductor", Precision.default(device), device)
specs = specs_of(checkpoint.config, Bucket(64, 64, 17), target)
loaded = dict((spec, load_engine(store, device, spec)) for spec in specs)
engines = partial(EngineSet, checkpoint.config, target, load=loaded.__getitem__)
"""
TORCH = """
import torch
mark("import_s")
"""
DIFFUSERS = """
import torch
from importlib.resources import files
from diffusers import HunyuanVideoPipeline
mark("import_s")
pipe = HunyuanVideoPipeline.from_pretrained(files("hyvideo_rt") / "tiny_model", dtype=torch.float32)
{compiled}
mark("load_s")

def progress(pipe, i, t, kwargs):
    if i == 0:
        mark("first_step_s")
    return kwargs

pipe(prompt="a red circle", height=64, width=64, num_frames=17, num_inference_steps=20,
     callback_on_step_end=progress)
mark("video_s")
"""
COMPILED = """
pipe.transformer.compile_repeated_blocks(fullgraph=True)
pipe.vae.decoder.compile(fullgraph=True)
"""


class ContestantFailed(Exception):
    """How its process ended, and the last line that it said; a note has the others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only-eager", action="store_true", help="without compiling anything")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args.runs, Path(folder), only_eager=args.only_eager)
    print(json.dumps(result["processes"], indent=2), result["ratios"])
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(runs: int, folder: Path, *, only_eager: bool) -> dict[str, Any]:
    scripts = {
        "torch": TORCH,
        "hyvideo_rt": OURS.format(engines="engines = None"),
        "diffusers": DIFFUSERS.format(compiled=""),
    }
    if not only_eager:
        build_s = build_engines(folder)
        scripts["engines"] = OURS.format(engines=FROM_STORE.format(folder=str(folder)))
    rounds, reasons = take_turns(scripts, runs, folder)
    processes: dict[str, Any] = {name: row_of(each) for name, each in rounds.items()}
    if not only_eager:
        processes["engines"]["build_s"] = round(build_s, 1)
        compiled = {"diffusers_compiled": DIFFUSERS.format(compiled=COMPILED)}
        once, why = take_turns(compiled, 1, folder, warm_up=0)
        processes |= {name: row_of(each) for name, each in once.items()}
        reasons |= why
    processes |= {name: {"reason": reason} for name, reason in reasons.items()}
    workload = Workload("tiny", [str(BUCKET)], STEPS, str(Precision.default(CPU)), ["eager", "inductor"])
    return {
        "conditions": conditions(CPU, workload),
        "limits": asdict(limits.measure(CPU)),
        "flops": embedded_flops("a red circle", SamplingParams(BUCKET, seed=0, num_inference_steps=STEPS)),
        "checkpoint_bytes": sum(path.stat().st_size for path in FOLDER.rglob("*.safetensors")),
        "processes": processes,
        "ratios": ratios_of(rounds),
    }


def take_turns(
    scripts: Mapping[str, str], runs: int, folder: Path, warm_up: int = 1
) -> tuple[dict[str, list[Marks]], dict[str, str]]:
    """What each run found, those that only warm the page cache left out; why a peer did not run."""
    rounds: dict[str, list[Marks]] = {name: [] for name in scripts}
    reasons: dict[str, str] = {}
    for turn in range(warm_up + runs):
        for name in list(rounds):
            try:
                found = run_script(scripts[name], folder)
            except ContestantFailed as error:
                if name not in PEERS:
                    raise
                reasons[name] = str(error)
                del rounds[name]
            else:
                rounds[name] += [found] if turn >= warm_up else []
    return rounds, reasons


def ratios_of(rounds: Mapping[str, list[Marks]]) -> dict[str, Any]:
    """diffusers' time to the first step over ours."""
    firsts = {name: [each["first_step_s"] for each in rounds[name]] for name in rounds if name != "torch"}
    theirs = firsts.pop("diffusers", None)
    return {name: asdict(Ratio.of(theirs, ours)) for name, ours in firsts.items() if theirs}


def row_of(runs: list[Marks]) -> dict[str, Any]:
    """Seconds from the start of the process to the end of each phase; bytes."""
    phases = [name for name in PHASES if name in runs[0]]
    timings = {name: asdict(Timing.of([run[name] for run in runs])) for name in phases}
    return timings | {f"{name}_bytes": max(run[name] for run in runs) for name in ("now", "peak")}


def build_engines(folder: Path) -> float:
    start = time.perf_counter()
    from_store(MODELS["tiny"], BUCKET, folder)
    return time.perf_counter() - start


def run_script(script: str, cache: Path) -> Marks:
    """Raises ContestantFailed."""
    whole = HEAD + script + TAIL
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1][:200]
        error = ContestantFailed(f"it ended with {done.returncode}: {last}")
        error.add_note(done.stderr)
        raise error
    found: Marks = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
