"""The tables of results on a CPU."""

from hyvideo_rt.bench.markdown import Result, cpu_words, load, ratio_words, table, timing_words
from hyvideo_rt.bench.quality_tables import quality_words

STAGES = {
    "encode": "prompt to text states",
    "denoise": "20 steps",
    "decode": "VAE decode",
    "video": "whole video",
    "write": "MP4",
}


def cpu_table(name: str = "end_to_end") -> str:
    result = load(f"cpu/{name}.json")
    rows = []
    for stage, words in STAGES.items():
        row = result["stages"][stage]
        cells = [
            timing_words(row[name]) if name in row else ""
            for name in ("hyvideo_rt", "engines", "diffusers", "diffusers_compiled")
        ]
        cells += [ratio_words(row["ratios"].get(name)) for name in ("eager", "compiled")]
        cells.append(_share(result, stage, row["engines"]) if stage in result["flops"] else "")
        rows.append(f"| {words} | {' | '.join(cells)} |\n")
    (size,) = result["conditions"]["sizes"]
    notes = (
        f"Embedded model, {size}, fp32, {cpu_words(result)}, diffusers 0.42.1. Medians (20th ",
        "to 80th percentile), turn by turn; ratios are diffusers' time over ours, eager over eager and ",
        "compiled over engines, with 95 % intervals by bootstrap over rounds; the limit is what a large ",
        f"fp32 product attains, {1e3 * result['limits']['matrix_tf_s']['float32']:.0f} GF/s. The videos ",
        f"differ by at most {result['max_video_difference']:.0e}. `{result['conditions']['command']}`",
    )
    head = ("", "hyvideo-rt", "engines", "diffusers", "compiled", "eager ratio", "compiled ratio")
    return table((*head, "engines, of the limit"), rows, notes)


def startup_table() -> str:
    result = load("cpu/startup.json")
    processes, limits = result["processes"], result["limits"]
    least_s = result["flops"]["video"] / limits["matrix_tf_s"]["float32"] / 1e12
    least_s += 2 * result["checkpoint_bytes"] / limits["copy_gb_s"] / 1e9
    names = {
        "torch": "`import torch` alone",
        "hyvideo_rt": "hyvideo-rt",
        "engines": "from engines",
        "diffusers": "diffusers",
        "diffusers_compiled": "diffusers, compiled",
    }
    rows = []
    for name, words in names.items():
        row = processes[name]
        cells = [
            f"{row[phase]['median_s']:.2f} s" if phase in row else ""
            for phase in ("import_s", "load_s", "first_step_s", "video_s")
        ]
        cells += [
            ratio_words(result["ratios"].get(name)),
            f"{100 * least_s / row['video_s']['median_s']:.1f} %" if "video_s" in row else "",
            *(f"{row[k] / 1e9:.2f} GB" for k in ("now_bytes", "peak_bytes")),
        ]
        rows.append(f"| {words} | {' | '.join(cells)} |\n")
    notes = (
        f"Embedded model, fp32, {cpu_words(result)}; from the start of the process to the end of each ",
        f"phase, medians of {processes['hyvideo_rt']['video_s']['runs']} turns; diffusers compiled once, ",
        f"its cache empty; building the engines took {processes['engines']['build_s']:.0f} s before. The ",
        "ratio is diffusers' first step over ours; memory is the process's at its end and at most; the ",
        f"limit is {1e3 * least_s:.0f} ms, its files copied and its arithmetic at a large product's rate. ",
        f"`{result['conditions']['command']}`",
    )
    head = ("", "imported", "loaded", "first step", "first video", "ratio", "of the limit", "memory", "peak")
    return table(head, rows, notes)


def steps_table() -> str:
    """Every rung at every size; a lossy one with what it does to videos."""
    result = load("cpu/steps.json")
    steps = 20 if result["conditions"]["weights"] == "tiny" else 50
    found = {(row["stage"], row["size"], row["rung"]): row for row in result["rows"]}
    rows = []
    for stage, size, rung in found:
        if stage == "denoise":
            quality = found[stage, size, rung]["quality"]
            lossy = f" (lossy: {quality_words(quality)})" if quality else ""
            row = found[stage, size, rung]
            cells = [*_rung_cells(row), f"{steps * row['median_s']:.3g} s" if "median_s" in row else ""]
            cells += _rung_cells(found.get(("decode", size, rung)))
            rows.append(f"| {size} | {rung}{lossy} | {' | '.join(cells)} |\n")
    reasons = {f"{row['rung']} did not run: {row['reason']}. " for row in result["rows"] if "reason" in row}
    notes = (
        f"Embedded model, {cpu_words(result)}. Ratios are diffusers' time over the rung's, turn by turn, ",
        "with 95 % intervals; the limit is what a large product in the rung's dtype attains; differences ",
        f"are of the results, relative, from diffusers'. {''.join(sorted(reasons))}",
        f"`{result['conditions']['command']}`",
    )
    one = ("time", "ratio", "of the limit", "difference")
    step = (*(f"step, {word}" for word in one), f"{steps} steps, projected")
    head = ("size", "", *step, *(f"decode, {word}" for word in one))
    return table(head, rows, notes)


def _rung_cells(row: Result | None) -> list[str]:
    if row is None or "median_s" not in row:
        return ["", "", "", ""]
    return [
        f"{1e3 * row['median_s']:.1f} ms",
        ratio_words(row.get("ratio")),
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
        f"Embedded model, fp32, {cpu_words(result)}: `{result['conditions']['command']}`. Build, file and ",
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
    return f"{1e3 * seconds:.1f} ms, {ratio_words(raced['ratio'])}, {100 * share:.0f} %"


def graphs_table() -> str:
    """Of ONNX Runtime and OpenVINO on one graph."""
    result = load("cpu/graphs.json")
    c, tf_s = result["conditions"], result["limits"]["matrix_tf_s"]["float32"]

    def cell(row: Result, name: str) -> str:
        share = row["flops"] / row[name]["median_s"] / 1e12 / tf_s
        ratio = [ratio_words(row["ratios"][name])] if name in row["ratios"] else []
        return ", ".join([timing_words(row[name]), *ratio, f"{100 * share:.0f} %"])

    names = ("eager", "onnxruntime", "openvino")
    rows = [
        f"| {case} | {' | '.join(cell(row, name) for name in names)} |\n"
        for case, row in result["rows"].items()
    ]
    notes = (
        f"Random weights, as inputs, fp32, {cpu_words(result)}. Medians (20th to 80th percentile), turn by ",
        "turn; ratios are eager's time over each, with 95 % intervals; shares are of what a large fp32 ",
        f"product attains. `{c['command']}`",
    )
    head = ("", "eager", f"ONNX Runtime {c['onnxruntime']}", f"OpenVINO {c['openvino'].split('-')[0]}")
    return table(head, rows, notes)


def loading_table() -> str:
    result = load("cpu/weights.json")
    rows = [
        f"| {r['layout']}, {r['precision']} | {r['checkpoint_gib']:.1f} GiB | {r['peak_ratio']:.2f} "
        f"| {r['least_ratio']:.2f} | {r['seconds']:.1f} s | {100 * _copied(r) / result['copy_gb_s']:.0f} % "
        f"|\n"
        for r in result["rows"]
    ]
    c = result["conditions"]
    notes = (f"{c['cpu']}, commit {c['commit']}: `{c['command']}`",)
    head = ("layout, as loaded", "checkpoint", "peak host memory / checkpoint", "least", "time", "of a copy")
    return table(head, rows, notes)


def _copied(row: Result) -> float:
    """GB/s, each byte of the checkpoint read once and written once."""
    return float(2 * row["checkpoint_gib"] * 2**30 / row["seconds"] / 1e9)


def _share(result: Result, stage: str, timing: Result) -> str:
    tf_s = result["flops"][stage] / timing["median_s"] / 1e12
    return f"{100 * tf_s / result['limits']['matrix_tf_s']['float32']:.0f} %"
