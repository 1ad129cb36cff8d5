"""Which program runs an ONNX block best on a CPU: `python -m hyvideo_rt.bench.graphs [--out F]`.

Eager PyTorch, ONNX Runtime and OpenVINO on one graph, weights as its inputs, turn by turn, fp32. Ratios are
eager's time over the others'.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.timing import Ratio, Timing, race
from hyvideo_rt.config import MODELS, ModelConfig
from hyvideo_rt.engines.library import require
from hyvideo_rt.engines.manifest import TensorInfo
from hyvideo_rt.engines.openvino import OpenVINO
from hyvideo_rt.engines.spec import EngineSpec
from hyvideo_rt.export.onnx_graph import export_onnx
from hyvideo_rt.export.parity import random_case
from hyvideo_rt.export.programs import Program, ops_for, program_of, sizes_of

CPU, TINY = torch.device("cpu"), MODELS["tiny"]
BLOCKS = ((192, 80), (512, 1024), (512, 4096))  # width, image tokens
TILE = (5, 8, 8)
TEXT_TOKENS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    tile = EngineSpec("vae_decoder_tile", "", TILE, "fp32", "openvino", "cpu")
    cases = {f"VAE tile {'x'.join(map(str, TILE))}": (tile, 192)}
    for width, tokens in BLOCKS:
        block = EngineSpec("single_block", "", (tokens, TEXT_TOKENS), "fp32", "openvino", "cpu")
        cases[f"single block, width {width}, {tokens + TEXT_TOKENS} tokens"] = (block, width)
    result: dict[str, Any] = {
        "conditions": conditions(
            CPU, Workload("random", list(cases), 0, "fp32", ["eager", "onnxruntime", "openvino"])
        )
        | {name: require(name).__version__ for name in ("onnxruntime", "openvino")},
        "limits": asdict(limits.measure(CPU)),
        "rows": {},
    }
    for name, (spec, width) in cases.items():
        result["rows"][name] = measure(spec, width, args.runs)
        print(name, json.dumps(result["rows"][name]), flush=True)
        if args.out:
            args.out.write_text(json.dumps(result, indent=2) + "\n")


@torch.inference_mode()
def measure(spec: EngineSpec, width: int, runs: int) -> dict[str, Any]:
    config = replace(TINY, dit=replace(TINY.dit, hidden_size=width, num_heads=width // TINY.dit.head_dim))
    program = program_of(spec, config)
    spelt_out = program_of(spec, config, ops_for(spec))
    graph = export_onnx(spelt_out)
    inputs, weights = random_case(program, sizes_of(spec, TEXT_TOKENS), CPU)
    contestants: dict[str, Callable[[], object]] = {
        "eager": lambda: program(inputs, weights),
        "onnxruntime": onnx_runtime_call(graph, [*inputs, *weights]),
        "openvino": openvino_call(graph, program, [*inputs, *weights]),
    }
    rounds = race(contestants, runs, warm_up=3)
    timings = {name: asdict(Timing.of(seconds)) for name, seconds in rounds.items()}
    ratios = {n: asdict(Ratio.of(rounds["eager"], s)) for n, s in rounds.items() if n != "eager"}
    return timings | {"ratios": ratios, "flops": flops_of(spec, config, lambda: spelt_out(inputs, weights))}


def flops_of(spec: EngineSpec, config: ModelConfig, run: Callable[[], object]) -> int:
    """A block's as torch counts its products; it does not see those of the tile's convolutions on a CPU."""
    if spec.component == "vae_decoder_tile":
        return work.tile_flops(config.vae, TILE)
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def onnx_runtime_call(graph: bytes, tensors: list[Tensor]) -> Callable[[], object]:
    """With all its optimisations, unlike `export.onnx_graph.onnx_runtime`.

    Its threads sleep after a call: by default they spin, on the cores of whoever's turn is next. Beside them
    the smallest block took eager PyTorch 5.5 ms instead of 1.2 on two cores.
    """
    library = require("onnxruntime")
    options = library.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = library.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feed = {each.name: x.numpy() for each, x in zip(session.get_inputs(), tensors, strict=True)}
    return lambda: session.run(None, feed)


def openvino_call(graph: bytes, program: Program, tensors: list[Tensor]) -> Callable[[], object]:
    """As the runtime calls it."""
    with tempfile.TemporaryDirectory() as folder:
        path, backend = Path(folder) / "engine.blob", OpenVINO()
        backend.build(graph, "float32", path)
        info = TensorInfo(program.inputs[0].name, program.inputs[0].shape, "float32")
        engine = backend.load(path, [info], [])
    return lambda: engine(*tensors)


if __name__ == "__main__":
    main()
