"""The tables of results on a CPU, and what all tables share: a result is read, Markdown comes back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyvideo_rt.bench.timing import Ratio

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
STAGES = {
    "encode": "prompt to text states",
    "denoise": "20 steps",
    "decode": "VAE decode",
    "video": "whole video",
    "write": "MP4",
}
Result = Mapping[str, Any]


def cpu_table(name: str = "end_to_end") -> str:
    result = load(f"cpu/{name}.json")
    rows = []
    for stage, words in STAGES.items():
        row = result["stages"][stage]
        cells = [
            _cell(row[name]) if name in row else ""
            for name in ("hyvideo_rt", "engines", "diffusers", "diffusers_compiled")
        ]
        cells += [_ratio(row["ratios"].get(name)) for name in ("eager", "compiled")]
        cells.append(_share(result, stage, row["engines"]) if stage in result["flops"] else "")
        rows.append(f"| {words} | {' | '.join(cells)} |\n")
    (size,) = result["conditions"]["sizes"]
    notes = (
        f"Embedded model, {size}, fp32, {_cpu_words(result)}, diffusers 0.42.1. Medians (20th ",
        "to 80th percentile), turn by turn; ratios are diffusers' time over ours, eager over eager and ",
        "compiled over engines, with 95 % intervals by bootstrap over rounds; the limit is what a large ",
        f"fp32 product attains, {1e3 * result['limits']['matrix_tf_s']['float32']:.0f} GF/s. The videos ",
        f"differ by at most {result['max_video_difference']:.0e}. `{result['conditions']['command']}`",
    )
    head = ("", "hyvideo-rt", "engines", "diffusers", "compiled", "eager ratio", "compiled ratio")
    return table((*head, "engines, of the limit"), rows, notes)


def startup_table() -> str:
    result = load("cpu/startup.json")
    processes = result["processes"]
    names = {
        "hyvideo_rt": "hyvideo-rt",
        "engines": "from engines",
        "diffusers": "diffusers",
        "diffusers_compiled": "diffusers, compiled",
    }
    rows = []
    for name, words in names.items():
        row = processes[name]
        cells = [
            f"{row[phase]['median_s']:.2f} s" for phase in ("import_s", "load_s", "first_step_s", "video_s")
        ]
        cells += [
            _ratio(result["ratios"].get(name)),
            *(f"{row[k] / 1e9:.2f} GB" for k in ("now_bytes", "peak_bytes")),
        ]
        rows.append(f"| {words} | {' | '.join(cells)} |\n")
    notes = (
        f"Embedded model, fp32, {_cpu_words(result)}; from the start of the process to the end of each ",
        f"phase, medians of {processes['hyvideo_rt']['video_s']['runs']} turns; diffusers compiled once, ",
        f"its cache empty; building the engines took {processes['engines']['build_s']:.0f} s before. The ",
        "ratio is diffusers' first step over ours; memory is the process's at its end and at most. ",
        f"`{result['conditions']['command']}`",
    )
    head = ("", "imported", "loaded", "first step", "first video", "ratio", "memory", "peak")
    return table(head, rows, notes)


def steps_table() -> str:
    """Every rung at every size; lossy rungs have their quality in the table of that name."""
    result = load("cpu/steps.json")
    found = {(row["stage"], row["size"], row["rung"]): row for row in result["rows"]}
    rows = []
    for stage, size, rung in found:
        if stage == "denoise":
            lossy = " (lossy)" if found[stage, size, rung]["lossy"] else ""
            cells = [c for each in ("denoise", "decode") for c in _rung_cells(found.get((each, size, rung)))]
            rows.append(f"| {size} | {rung}{lossy} | {' | '.join(cells)} |\n")
    reasons = {f"{row['rung']} did not run: {row['reason']}. " for row in result["rows"] if "reason" in row}
    notes = (
        f"Embedded model, {_cpu_words(result)}. Ratios are diffusers' time over the rung's, turn by turn, ",
        "with 95 % intervals; the limit is what a large product in the rung's dtype attains; differences ",
        f"are of the results, relative, from diffusers'. {''.join(sorted(reasons))}",
        f"`{result['conditions']['command']}`",
    )
    one = ("time", "ratio", "of the limit", "difference")
    head = ("size", "", *(f"step, {word}" for word in one), *(f"decode, {word}" for word in one))
    return table(head, rows, notes)


def _rung_cells(row: Result | None) -> list[str]:
    if row is None or "median_s" not in row:
        return ["", "", "", ""]
    return [
        f"{1e3 * row['median_s']:.1f} ms",
        _ratio(row.get("ratio")),
        f"{100 * row['share']:.0f} %",
        f"{row['difference']:.0e}" if row["difference"] else "",
    ]


def engines_table() -> str:
    result = load("cpu/engines.json")
    rows = [
        f"| {each['backend']} | {row['size']} | {row['build_s']:.0f} s | {row['bytes'] / 1e6:.1f} MB "
        f"| {1e3 * row['load_s']:.0f} ms | {1e3 * row['swap_s']:.2f} ms | {1e3 * row['first_step_s']:.1f} ms "
        f"| {_against_eager(result, row['step'])} | {_against_eager(result, row['tile'])} |\n"
        for each in result["backends"]
        for row in each["rows"]
    ]
    binds = ", ".join(f"{each['backend']} {1e3 * each['bind_s']:.0f} ms" for each in result["backends"])
    notes = (
        f"Embedded model, fp32, {_cpu_words(result)}: `{result['conditions']['command']}`. Build, file and ",
        "load are of all engines of a size; steps and tiles are medians, with eager's time over the ",
        "engines' own, turn by turn, its 95 % interval, and the share of what a large fp32 product attains. ",
        f"Bind, once for all sizes: {binds}.",
    )
    return table(
        ("backend", "size", "build", "files", "load", "swap", "first step", "step", "VAE tile"), rows, notes
    )


def _against_eager(result: Result, raced: Result) -> str:
    seconds = raced["engines"]["median_s"]
    share = raced["flops"] / seconds / 1e12 / result["limits"]["matrix_tf_s"]["float32"]
    return f"{1e3 * seconds:.1f} ms, {_ratio(raced['ratio'])}, {100 * share:.0f} %"


def quality_table() -> str:
    result, layers = load("cpu/quality.json"), load("cpu/quality_layers.json")
    judged = ("colour", "shape", "direction", "all")
    dense = " | ".join(f"{100 * result['bf16'][name]:.1f} %" for name in judged)
    rows = [f"| bf16 | | | | {dense} |\n"]
    for name, row in result["settings"].items():
        points = " | ".join(_points(row["points"][each]) for each in judged)
        rows.append(
            f"| {name} | {row['psnr_db']:.1f} dB | {row['ssim']:.3f} "
            f"| {row['latent_error_mean']:.3f}, {row['latent_error_max']:.1f} | {points} |\n"
        )
    each = sorted(layers["psnr_db_each"].items(), key=lambda pair: pair[1])
    notes = (
        f"Embedded model, {result['prompts']} held-out prompts, each with its own seed, beside the same ",
        "videos in bf16: mean PSNR and SSIM; mean and largest error of the latents, in their standard ",
        "deviations; judged right, in percent points more or less than bf16, with the 95 % interval of a ",
        f"bootstrap over prompts. On a CPU with the arithmetic of a GPU. {_cpu_words(result)}: ",
        f"`{result['conditions']['command']}`. One kind of layer in 8 bits: ",
        ", ".join(f"{name} {value:.1f}" for name, value in each),
        f" dB (commit {layers['conditions']['commit']}, `{layers['conditions']['command']}`).",
    )
    return table(("", "PSNR", "SSIM", "latents", *judged), rows, notes)


def _points(points: Result) -> str:
    mean, low, high = (100 * points[name] for name in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def server_table() -> str:
    result = load("cpu/server_load.json")
    overhead, burst = result["overhead"], result["burst"]
    accepted, refused = (burst["statuses"][status] for status in ("200", "429"))
    rows = [
        f"| one video, pipeline and file alone | {overhead['bare_ms']:.0f} ms |\n",
        f"| one video through the server | {overhead['through_the_server_ms']:.0f} ms |\n",
        f"| of it outside the worker's stages | {overhead['over_the_stages_ms']:.1f} ms |\n",
        f"| {burst['creates']} creates at once: accepted, refused | {accepted}, {refused} |\n",
        f"| a refusal, median and 99th percentile | {burst['refused_p50_ms']:.0f}, "
        f"{burst['refused_p99_ms']:.0f} ms |\n",
    ]
    notes = (
        f"Embedded model, {_cpu_words(result)}, {burst['connections']} connections, while the worker makes ",
        f"videos on the same cores. Every accepted video ended once. `{result['conditions']['command']}`",
    )
    return table(("", "median"), rows, notes)


def loading_table() -> str:
    result = load("cpu/weights.json")
    rows = [
        f"| {r['layout']}, {r['precision']} | {r['checkpoint_gib']:.1f} GiB | {r['peak_ratio']:.2f} |\n"
        for r in result["rows"]
    ]
    c = result["conditions"]
    notes = (f"{c['cpu']}, commit {c['commit']}: `{c['command']}`",)
    return table(("layout, as loaded", "checkpoint", "peak host memory / checkpoint"), rows, notes)


def table(head: Sequence[str], rows: Sequence[str], notes: Sequence[str]) -> str:
    rule = "|" + "---|" * len(head)
    return f"| {' | '.join(head)} |\n{rule}\n{''.join(rows)}\n{''.join(notes)}\n"


def _ratio(ratio: Result | None) -> str:
    return str(Ratio(ratio["median"], ratio["low"], ratio["high"])) if ratio else ""


def _share(result: Result, stage: str, timing: Result) -> str:
    tf_s = result["flops"][stage] / timing["median_s"] / 1e12
    return f"{100 * tf_s / result['limits']['matrix_tf_s']['float32']:.0f} %"


def _cpu_words(result: Result) -> str:
    c = result["conditions"]
    return f"{c['threads']} threads of {c['cpu']}, torch {c['torch']}, commit {c['commit']}"


def _cell(timing: dict[str, float]) -> str:
    median, p20, p80 = (timing[name] for name in ("median_s", "p20_s", "p80_s"))
    if median >= 1:
        return f"{median:.2f} s ({p20:.2f}-{p80:.2f})"
    return f"{1e3 * median:.1f} ms ({1e3 * p20:.1f}-{1e3 * p80:.1f})"


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return content
