"""Kernels against eager torch and torch.compile: `python -m hyvideo_rt.bench.kernels [--out F]`.

Memory-bound operators in GB/s, counting each input once and each output once, and as a share of what a copy
on this device reaches; attention by every backend that works here, in TF/s, with its error against fp64 on a
sample of rows. Contestants take turns; each row is written at once. On a GPU at the sizes of 720x1280x129 and
544x960x129; on a CPU small ones, without the Triton kernels, which a CPU would interpret. What rounds to 8
bits names the setting of `bench.quality` that tells what this does to videos.
"""

import argparse
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.attention import Setting, try_attention
from hyvideo_rt.bench import limits
from hyvideo_rt.bench.conditions import Workload, conditions
from hyvideo_rt.bench.limits import CALLS
from hyvideo_rt.bench.quality_tables import OF_ATTENTION, lossy_words
from hyvideo_rt.bench.timing import Ratio, Timing, race
from hyvideo_rt.cli.ops_choice import attention_cache
from hyvideo_rt.kernels.attention_backends import BACKENDS
from hyvideo_rt.kernels.ops import REFERENCE

TEXT, HEADS, HEAD_DIM = 256, 24, 128
GPU_TOKENS = {"720x1280x129": 118_800, "544x960x129": 67_320}
CPU_TOKENS = {"64x64x17": 80}
ROWS = 60  # of the output, spread over all tokens, of three heads, are compared with fp64
IN_ROWS = "8-bit products"  # the setting of bench.quality of operators that round their result row by row
Run = Callable[..., object]
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A memory-bound operator at one size. moved is what it has to read and write, in bytes."""

    name: str
    inputs: tuple[object, ...]
    contestants: Mapping[str, Run]
    moved: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=["memory", "attention"], default=["memory", "attention"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    workload = Workload(
        "random",
        list(GPU_TOKENS if gpu else CPU_TOKENS),
        0,
        "bf16" if gpu else "fp32",
        ["eager", "torch.compile", "Triton"][: 3 if gpu else 2],
    )
    result: dict[str, object] = {"conditions": conditions(device, workload)}
    with torch.inference_mode():
        result["limits"] = vars(limits.measure(device, args.runs))
        for part, run in (("memory", memory_rows), ("attention", attention_rows)):
            if part in args.only:
                for row in run(device, args.runs, functools.partial(keep, args.out, result, part)):
                    lossy = "" if "error" in row else lossy_words(row["quality"])
                    print(json.dumps(row), lossy, flush=True)


def keep(out: Path | None, result: dict[str, object], part: str, rows: list[Row]) -> None:
    result[part] = rows
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")


def memory_rows(device: torch.device, runs: int, keep: Callable[[list[Row]], None]) -> list[Row]:
    """A row per operator, all contestants turn by turn; ratios are their times over the last one's."""
    rows = list[Row]()
    for case in (*dit_cases(device), *vae_cases(device)):
        made = case()
        contestants = {name: functools.partial(run, *made.inputs) for name, run in made.contestants.items()}
        rounds = race(contestants, runs, warm_up=2, device=device, calls=CALLS)
        last = rounds[list(rounds)[-1]]
        row: Row = {"kernel": made.name, "quality": IN_ROWS if made.name.endswith("_rows") else None}
        row |= {"bytes": made.moved}
        for name, seconds in rounds.items():
            timing = Timing.of(seconds)
            row[name] = timing_ms(timing) | {"gb_s": float(f"{made.moved / timing.median_s / 1e9:.5g}")}
        row["ratios"] = {n: asdict(Ratio.of(s, last)) for n, s in rounds.items() if s is not last}
        rows.append(row)
        keep(rows)
        torch._dynamo.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def timing_ms(timing: Timing) -> Row:
    median, low, high = (round(1e3 * s, 4) for s in (timing.median_s, timing.p20_s, timing.p80_s))
    return {"ms": median, "p20_ms": low, "p80_ms": high, "runs": timing.runs}


def dit_cases(device: torch.device) -> list[Callable[[], Case]]:
    """In the order of a block, at the largest size."""
    gpu = device.type == "cuda"
    tokens, width = (GPU_TOKENS["720x1280x129"], HEADS * HEAD_DIM) if gpu else (CPU_TOKENS["64x64x17"], 256)
    heads, dtype = width // HEAD_DIM, torch.bfloat16 if gpu else torch.float32
    size = torch.empty((), dtype=dtype).element_size()
    stream, joint = tokens * width * size, (tokens + TEXT) * width * size
    random = functools.partial(torch.randn, device=device, dtype=dtype)
    angles = functools.partial(torch.rand, device=device)
    row, weight = functools.partial(random, 1, width), functools.partial(random, HEAD_DIM)

    def adaln() -> Case:
        x = random(1, tokens, width)
        return _case("layer_norm_modulate", (x, row(), row()), 2 * stream)

    def gate() -> Case:
        return _case("gate_residual", (random(1, tokens, width), row(), random(1, tokens, width)), 3 * stream)

    def gate_norm() -> Case:
        x, y = random(2, 1, tokens, width)
        return _case("gate_residual_norm", (x, row(), y, row(), row()), 4 * stream)

    def double() -> Case:
        img, txt = random(1, tokens, 3, heads, HEAD_DIM), random(1, TEXT, 3, heads, HEAD_DIM)
        table = [angles(tokens, HEAD_DIM // 2) for _ in range(2)]
        inputs = (img, txt, weight(), weight(), weight(), weight(), *table)
        return _case("joint_qkv", inputs, 6 * joint + 2 * table[0].nbytes)

    def single() -> Case:
        linear1 = random(1, tokens + TEXT, 7 * width)
        qkv = linear1[..., : 3 * width].unflatten(-1, (3, heads, HEAD_DIM))
        table = [angles(tokens + TEXT, HEAD_DIM // 2) for _ in range(2)]
        return _case("qk_norm_rope", (qkv, weight(), weight(), *table), 4 * joint + 2 * table[0].nbytes)

    def gelu() -> Case:
        linear1 = random(1, tokens + TEXT, 7 * width)
        return _case("gelu_beside", (random(1, tokens + TEXT, width), linear1[..., 3 * width :]), 10 * joint)

    def adaln_rows() -> Case:
        x = random(1, tokens, width)
        moved = stream + tokens * (width + 4)  # a byte each, and a scale per row
        return _case("layer_norm_modulate_rows", (x, row(), row()), moved)

    def gelu_rows() -> Case:
        linear1 = random(1, tokens + TEXT, 7 * width)
        moved = 5 * joint + (tokens + TEXT) * (5 * width + 4)
        attn = random(1, tokens + TEXT, width)
        return _case("gelu_beside_rows", (attn, linear1[..., 3 * width :]), moved)

    return [adaln, gate, gate_norm, double, single, gelu, adaln_rows, gelu_rows]


def vae_cases(device: torch.device) -> list[Callable[[], Case]]:
    """At the sizes where a full decoder tile spends its time; channels lie together in memory."""
    gpu = device.type == "cuda"
    shapes = [(128, 65, 256, 256), (256, 65, 256, 256), (512, 33, 128, 128)] if gpu else [(32, 9, 32, 32)]
    dtype = torch.float16 if gpu else torch.float32
    pad = (1, 1, 1, 1, 2, 0)

    def tensor(shape: Sequence[int]) -> Tensor:
        x = torch.randn(1, *shape, device=device, dtype=dtype)
        return x.contiguous(memory_format=torch.channels_last_3d) if gpu else x

    def padded(c: int, t: int, h: int, w: int) -> int:
        return c * (t + 2) * (h + 2) * (w + 2)

    def norm(shape: tuple[int, int, int, int]) -> Case:
        x, weight = tensor(shape), torch.randn(2, shape[0], device=device, dtype=dtype)
        moved = (2 * x.numel() + padded(*shape)) * x.element_size()
        name = f"group_norm_silu_pad {'x'.join(map(str, shape))}"
        return _case(name, (x, weight[0], weight[1], shape[0] // 4 if shape[0] < 128 else 32, pad), moved)

    def upsample(shape: tuple[int, int, int, int]) -> Case:
        c, t, h, w = shape
        x = tensor((c, (t + 1) // 2, h // 2, w // 2))
        moved = (x.numel() + padded(*shape)) * x.element_size()
        return _case(f"upsample_pad {'x'.join(map(str, shape))}", (x, (2, 2, 2), pad), moved)

    return [functools.partial(make, shape) for shape in shapes for make in (norm, upsample)]


def _case(title: str, inputs: tuple[object, ...], moved: int) -> Case:
    """The operator that the title begins with."""
    name = title.split()[0]
    reference = getattr(REFERENCE, name)
    contestants: dict[str, Run] = {
        "eager": reference,
        "compile": torch.compile(reference, dynamic=False, fullgraph=True),
    }
    if torch.cuda.is_available():
        from hyvideo_rt.kernels.triton_ops import triton_ops

        contestants["triton"] = getattr(triton_ops("sdpa", BACKENDS["sdpa"].load()), name)
    return Case(title, inputs, contestants, moved)


def attention_rows(device: torch.device, runs: int, keep: Callable[[list[Row]], None]) -> list[Row]:
    """Every backend that works here, at every size; one that does not has its reason."""
    rows = list[Row]()
    for size, tokens in (GPU_TOKENS if device.type == "cuda" else CPU_TOKENS).items():
        inputs = attention_inputs(tokens + TEXT, device)
        rows = attention_race(size, inputs, runs, rows, keep)
    return rows


def attention_race(
    size: str,
    inputs: tuple[Tensor, Tensor, Tensor],
    runs: int,
    done: Sequence[Row],
    keep: Callable[[list[Row]], None],
) -> list[Row]:
    """Turn by turn at one size, after what is done. Ratios are the time of torch's own choice over each."""
    q = inputs[0]
    arithmetic = 4 * q.shape[1] ** 2 * q.shape[2] * q.shape[3]
    about, runnable = judged_attention(size, *inputs)

    def rows(rounds: Mapping[str, list[float]]) -> list[Row]:
        timed = {name: _attained(rounds, name, arithmetic) for name in rounds}
        return [*done, *(row | timed.get(name, {}) for name, row in about.items())]

    keep(rows({}))
    return rows(race(runnable, runs, device=q.device, after_round=lambda rounds: keep(rows(rounds))))


def judged_attention(
    size: str, q: Tensor, k: Tensor, v: Tensor
) -> tuple[dict[str, Row], dict[str, Callable[[], object]]]:
    """By backend what is known before the race, its error or its reason; and those that can run."""
    picked = torch.linspace(0, q.shape[1] - 1, ROWS, device=q.device).long()
    heads = sorted({0, q.shape[2] // 2, q.shape[2] - 1})
    exact = exact_rows(q, k, v, picked, heads)
    about, runnable = dict[str, Row](), dict[str, Callable[[], object]]()
    for name, backend in BACKENDS.items():
        if name == "math" and q.is_cuda:
            continue  # tokens x tokens scores of every head at once: terabytes
        row = {"size": size, "tokens": q.shape[1], "backend": name, "bits": backend.bits}
        about[name] = row | {"quality": OF_ATTENTION.get(name)}
        # In a process of its own first: a library may end the process that calls it.
        if reason := try_attention(name, Setting(q.device, q.dtype, HEAD_DIM), attention_cache()).reason:
            about[name]["error"] = reason
            continue
        try:
            attend = backend.load()
            got = attend(q, k, v).unflatten(-1, q.shape[2:])[0, picked][:, heads].double()
        except Exception as error:
            about[name]["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        about[name]["relative_error"] = float(((got - exact).norm() / exact.norm()).item())
        runnable[name] = functools.partial(attend, q, k, v)
    return about, runnable


def _attained(rounds: Mapping[str, list[float]], name: str, arithmetic: int) -> Row:
    timing = Timing.of(rounds[name])
    row = timing_ms(timing) | {"tf_s": round(arithmetic / timing.median_s / 1e12, 2)}
    if name == "sdpa":
        return row
    return row | {"ratio": asdict(Ratio.of(rounds["sdpa"], rounds[name])) | {"of": "sdpa"}}


def attention_inputs(tokens: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v [1, tokens, heads, 128] as the model's: normalised, similar to their neighbours, with outliers.

    A token attends above all to those near it; keys share a direction and values have a mean, per channel,
    which is what makes 8 bits hard.
    """
    gpu = device.type == "cuda"
    heads, dtype = (HEADS, torch.bfloat16) if gpu else (2, torch.float32)
    generator = torch.Generator(device).manual_seed(0)
    random = functools.partial(torch.randn, generator=generator, device=device)
    place = torch.arange(tokens, device=device)[:, None] * torch.logspace(
        -1, -4, HEAD_DIM // 2, device=device
    )
    waves = torch.cat((place.cos(), place.sin()), dim=-1)[None, :, None]  # near tokens are alike

    def normalised(x: Tensor) -> Tensor:
        return (1.3 * x / x.square().mean(-1, keepdim=True).sqrt()).to(dtype)

    outlier = 2 * random(1, 1, heads, HEAD_DIM)
    q = normalised(waves + 0.7 * random(1, tokens, heads, HEAD_DIM))
    k = normalised(waves + 0.7 * random(1, tokens, heads, HEAD_DIM) + outlier)
    v = (random(1, tokens, heads, HEAD_DIM) + waves + 0.5 * random(1, 1, heads, HEAD_DIM)).to(dtype)
    return q, k, v


def exact_rows(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, heads: Sequence[int]) -> Tensor:
    """Some rows of some heads of the attention in fp64: [rows, heads, hd]."""
    out = []
    for head in heads:
        scores = q[0, rows, head].double() @ k[0, :, head].double().T * q.shape[-1] ** -0.5
        out.append(scores.softmax(-1) @ v[0, :, head].double())
    return torch.stack(out, dim=1)


if __name__ == "__main__":
    main()
