"""Writes the README's tables from `bench/results/`: `python -m hyvideo_rt.bench.readme`.

Each table stands between `<!-- NAME -->` and `<!-- end -->`. With --check nothing is written and the exit
status says whether the README is up to date.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hyvideo_rt.bench.footprint import planned_gib
from hyvideo_rt.buckets import Bucket

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
STAGES = {
    "encode": "prompt to text states",
    "denoise": "20 steps",
    "decode": "VAE decode",
    "video": "whole video",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text()
    new = with_tables(text)
    if args.check:
        return int(new != text)
    readme.write_text(new)
    return 0


def with_tables(text: str) -> str:
    for name, make in TABLES.items():
        head, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition("<!-- end -->")
        if not (start and end):
            raise SystemExit(f"README.md has no place for a table: <!-- {name} --> ... <!-- end -->")
        text = head + start + make() + end + tail
    return text


def cpu_table() -> str:
    result = _load("cpu/end_to_end.json")
    startup = _load("cpu/startup.json")["startup"]
    cells = [_cell(startup["hyvideo_rt"]), "", _cell(startup["diffusers"]), "", f"{startup['ratio']:.2f}", ""]
    rows = [f"| import to first step | {' | '.join(cells)} |\n"]
    for stage, words in STAGES.items():
        row = result["stages"][stage]
        cells = [_cell(row[name]) for name in ("hyvideo_rt", "engines", "diffusers", "diffusers_compiled")]
        cells += [_interval(row["ratios"][name]) for name in ("eager", "compiled")]
        rows.append(f"| {words} | {' | '.join(cells)} |\n")
    c, difference = result["conditions"], result["max_video_difference"]
    notes = (
        f"Embedded model, {result['bucket']}, fp32, {c['threads']} threads of {c['cpu']}, ",
        f"torch {c['torch']}, diffusers 0.42.1, commit {c['commit']}. Medians (20th to 80th percentile), ",
        "turn by turn; ratios are diffusers' time over ours, with 95 % intervals by bootstrap over rounds. ",
        f"The videos differ by at most {difference:.0e}. ",
        "`python -m hyvideo_rt.bench.end_to_end`, `python -m hyvideo_rt.bench.startup`",
    )
    head = ("", "hyvideo-rt", "from engines", "diffusers", "compiled", "eager ratio", "compiled ratio")
    return _table(head, rows, notes)


def gpu_table() -> str:
    """Runs of one kind of GPU, one after the other: no ratios."""
    lines, notes = [], []
    for name in ("footprint", "footprint_triton"):
        result = _load(f"h100/{name}.json")
        for row in result["rows"]:
            if row["stage"] == "encode" and not row["bucket"].startswith("720x1280"):
                continue
            what = {"encode": "LLM, 351 tokens", "denoise": "one step", "decode": "VAE decode"}[row["stage"]]
            size = "" if row["stage"] == "encode" else row["bucket"]
            lines.append(
                f"| {what} | {size} | {result['kernels']} | {row['seconds']:.2f} s "
                f"| {row['activations_gib']:.1f} GiB "
                f"| {planned_gib(row['stage'], Bucket.parse(row['bucket'])):.1f} GiB |\n"
            )
        c = result["conditions"]
        notes.append(f"{result['kernels']}: commit {c['commit']}, `{c['command']}`. ")
    start = (
        f"{_gpu_words(c)}, bf16 (VAE and LLM fp16), random weights, no engines, one run each after a small ",
        "warm-up. ",
    )
    head = ("stage", "size", "kernels, attention", "time", "activations", "planned")
    return _table(head, lines, (*start, *notes))


def kernels_table() -> str:
    result = _load("h100/kernels.json")
    copy = result["copy_gb_s"]
    rows = [
        f"| {row['kernel']} | {row['eager']['gb_s']:.0f} | {row['compile']['gb_s']:.0f} "
        f"| {row['triton']['gb_s']:.0f} | {100 * row['triton']['gb_s'] / copy:.0f} % |\n"
        for row in result["memory"]
    ]
    c = result["conditions"]
    notes = (
        "GB/s at 720x1280x129 (the VAE's at sizes inside a full tile), medians of 3 times 10 calls, turn ",
        f"by turn; a copy moves {copy:.0f} GB/s. {_gpu_words(c)}, commit {c['commit']}: `{c['command']}`",
    )
    return _table(("operator", "eager", "torch.compile", "ours", "of a copy"), rows, notes)


def attention_table() -> str:
    result = _load("h100/kernels.json")
    ran = [row for row in result["attention"] if "tf_s" in row]
    large, small = (
        {r["backend"]: r for r in ran if r["size"].startswith(s)} for s in ("720x1280", "544x960")
    )
    rows = [
        f"| {name} | {row['bits']} | {row['ms']:.0f} ms, {row['tf_s']:.0f} TF/s "
        f"| {small[name]['ms']:.0f} ms, {small[name]['tf_s']:.0f} TF/s | {row['relative_error']:.1e} |\n"
        for name, row in sorted(large.items(), key=lambda pair: pair[1]["ms"])
    ]
    c = result["conditions"]
    notes = (
        "One call, 24 heads of 128, with 256 text tokens; the rounding to 8 bits is part of it. Errors are ",
        "against fp64 on 60 rows of 3 heads, of inputs with the outliers that make 8 bits hard. ",
        f"{_gpu_words(c)}, commit {c['commit']}: `{c['command']}`",
    )
    return _table(("attention", "bits", "720x1280x129", "544x960x129", "relative error"), rows, notes)


def _gpu_words(conditions: dict[str, Any]) -> str:
    gpu, driver, power, *_ = conditions["gpu"].split(", ")
    return f"{gpu}, {power} cap, driver {driver}, torch {conditions['torch']}"


def engines_table() -> str:
    result = _load("cpu/engines.json")
    rows = [
        f"| {each['backend']} | {row['size']} | {row['build_s']:.0f} s | {row['bytes'] / 1e6:.1f} MB "
        f"| {1e3 * row['load_s']:.0f} ms | {1e3 * row['swap_s']:.2f} ms | {1e3 * row['first_step_s']:.1f} ms "
        f"| {_against_eager(row['step'])} | {_against_eager(row['tile'])} |\n"
        for each in result["backends"]
        for row in each["rows"]
    ]
    c = result["conditions"]
    binds = ", ".join(f"{each['backend']} {1e3 * each['bind_s']:.0f} ms" for each in result["backends"])
    notes = (
        f"Embedded model, fp32, {c['threads']} threads of {c['cpu']}, torch {c['torch']}, ",
        f"commit {c['commit']}: `{c['command']}`. Build, file and load are of all engines of a size; steps ",
        "and tiles are medians with eager's time over the engines' own, turn by turn. ",
        f"Bind, once for all sizes: {binds}.",
    )
    return _table(
        ("backend", "size", "build", "files", "load", "swap", "first step", "step", "VAE tile"), rows, notes
    )


def _against_eager(timings: dict[str, dict[str, float]]) -> str:
    ours, eager = timings["engines"]["median_s"], timings["eager"]["median_s"]
    return f"{1e3 * ours:.1f} ms, {eager / ours:.2f}x"


def fp8_table() -> str:
    result = _load("cpu/fp8.json")
    shares = ("colour", "shape", "direction", "all")
    rows = [
        f"| {name} | {' | '.join(f'{100 * result[name][share]:.1f} %' for share in shares)} |\n"
        for name in ("bf16", "fp8")
    ]
    each = sorted(result["psnr_db_each"].items(), key=lambda pair: pair[1])
    c = result["conditions"]
    notes = (
        f"Embedded model, {result['prompts']} held-out prompts, the arithmetic of the FP8 engines on a CPU, ",
        f"commit {c['commit']}: `{c['command']}`. FP8 videos are {result['psnr_db']:.1f} dB from those in ",
        f"bf16; with one kind of layer in FP8 ({result['prompts_each']} prompts): ",
        ", ".join(f"{name} {value:.1f}" for name, value in each),
        f" dB; all linear layers {result['psnr_db_linears']:.1f} dB, as nvidia-modelopt calibrates them ",
        f"{result['psnr_db_linears_modelopt']:.1f} dB.",
    )
    return _table(("", *shares), rows, notes)


def loading_table() -> str:
    result = _load("cpu/weights.json")
    rows = [
        f"| {r['layout']}, {r['precision']} | {r['checkpoint_gib']:.1f} GiB | {r['peak_ratio']:.2f} |\n"
        for r in result["rows"]
    ]
    c = result["conditions"]
    notes = (f"{c['cpu']}, commit {c['commit']}: `{c['command']}`",)
    return _table(("layout, as loaded", "checkpoint", "peak host memory / checkpoint"), rows, notes)


TABLES: dict[str, Callable[[], str]] = {
    "cpu": cpu_table,
    "engines": engines_table,
    "fp8": fp8_table,
    "kernels": kernels_table,
    "attention": attention_table,
    "gpu": gpu_table,
    "loading": loading_table,
}


def _table(head: Sequence[str], rows: Sequence[str], notes: Sequence[str]) -> str:
    rule = "|" + "---|" * len(head)
    return f"| {' | '.join(head)} |\n{rule}\n{''.join(rows)}\n{''.join(notes)}\n"


def _interval(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"


def _cell(timing: dict[str, float]) -> str:
    median, p20, p80 = (timing[name] for name in ("median_s", "p20_s", "p80_s"))
    if median >= 1:
        return f"{median:.2f} s ({p20:.2f}-{p80:.2f})"
    return f"{1e3 * median:.1f} ms ({1e3 * p20:.1f}-{1e3 * p80:.1f})"


def _load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return content


if __name__ == "__main__":
    sys.exit(main())
