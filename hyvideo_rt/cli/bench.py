"""`hyvideo-rt bench NAME ...`: the benchmarks; `python -m hyvideo_rt.bench.NAME` runs the same."""

import argparse
import runpy
import sys

from hyvideo_rt.errors import InvalidRequest

BENCHMARKS = {
    "end-to-end": "a whole video, stage by stage, against diffusers eager and compiled",
    "startup": "a fresh process to its first video, with memory",
    "request": "one request on a timeline",
    "steps": "a step and a decode, one optimisation at a time, against diffusers and xDiT",
    "engines": "engines: build, load, bind, swap, first and steady call",
    "kernels": "operators in GB/s and attention in TF/s",
    "quality": "what 8 bits do to videos (in a checkout)",
    "weights": "loading: peak memory and GB/s",
    "footprint": "the memory plan against a GPU",
    "server-load": "the server: overhead over the pipeline, a burst of creates",
    "server-stress": "the server: kill -9, cancels, malformed requests, memory over an hour",
    "limits": "what this device can do at most",
    "graphs": "eager PyTorch, ONNX Runtime and OpenVINO on one graph",
    "compare": "two results: faster, slower or the same",
    "readme": "tables of results: of the documents here, or of any folder",
    "plots": "pictures of results",
    "gpu-suite": "all that matters on a GPU within some minutes, resumable",
}


def bench(args: argparse.Namespace) -> int:
    """Runs the module as if it had been called itself; its exit status."""
    sys.argv = [f"hyvideo-rt bench {args.name}", *args.rest]
    try:
        runpy.run_module(f"hyvideo_rt.bench.{args.name.replace('-', '_')}", run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except ModuleNotFoundError as error:
        mend = "run it in a checkout" if error.name == "tiny" else "pip install 'hyvideo-rt[bench]'"
        raise InvalidRequest(
            f"got bench {args.name}, which needs {error.name}, and that is not here\n  {mend}"
        ) from error
    return 0
