"""The tables of steps, engines, whole videos and starts, of any device that has the results."""

from hyvideo_rt.bench.markdown import (
    Result,
    bytes_words,
    device_words,
    flops_words,
    load,
    load_steps,
    memory_words,
    ratio_words,
    seconds_words,
    table,
    timing_words,
)
from hyvideo_rt.bench.quality_tables import lossy_words
from hyvideo_rt.buckets import Bucket

STAGES = {
    "encode": "prompt to text states",
    "denoise": "20 steps",
    "decode": "VAE decode",
    "video": "whole video",
    "write": "MP4",
}


CONTESTANTS = ("hyvideo_rt", "engines", "diffusers", "diffusers_compiled")


def cpu_table(name: str = "end_to_end") -> str:
    """One video, stage by stage, against diffusers."""
    result = load(f"cpu/{name}.json")
    rows = []
    for stage, words in STAGES.items():
        row = result["stages"][stage]
        cells = [_stage_cell(result, stage, row[name]) if name in row else "" for name in CONTESTANTS]
        cells += [ratio_words(row["ratios"].get(name)) for name in ("eager", "compiled")]
        rows.append(f"| {words} | {_stage_work(result, stage)} | {' | '.join(cells)} |\n")
    video = result["stages"]["video"]
    memory = [memory_words(video[name]) if name in video else "" for name in CONTESTANTS]
    rows.append(f"| its memory: at most, kept | | {' | '.join(memory)} | | |\n")
    reasons = [f"{name} did not run: {reason}. " for name, reason in result["reasons"].items()]
    (size,), c, limits = result["conditions"]["sizes"], result["conditions"], result["limits"]
    off = result["max_video_difference"]
    same = "" if off is None else f"The videos differ by at most {off:.0e}. "
    notes = (
        f"Embedded model, {size}, fp32, {device_words(result)}, diffusers {c['diffusers']}. Medians (20th ",
        "to 80th percentile), turn by turn; then what is attained, and its share of what a large fp32 ",
        f"product attains, {flops_words(1e12 * limits['matrix_tf_s']['float32'])}/s, or, of the file, of a ",
        "copy of its frames. Ratios are diffusers' time over ours, eager over eager and compiled over ",
        f"engines, with 95 % intervals by bootstrap over rounds. {''.join(reasons)}{same}",
        f"`{c['command']}`",
    )
    head = ("", "work", "hyvideo-rt", "engines", "diffusers", "compiled", "eager ratio", "compiled ratio")
    return table(head, rows, notes)


def _stage_work(result: Result, stage: str) -> str:
    flops = result["flops"].get(stage)
    return flops_words(flops) if flops else bytes_words(_frame_bytes(result))


def _stage_cell(result: Result, stage: str, timing: Result) -> str:
    """Time, what is attained, and its share of the limit: the file's is a copy's."""
    seconds, limits = timing["median_s"], result["limits"]
    if stage in result["flops"]:
        rate = result["flops"][stage] / seconds
        share = rate / 1e12 / limits["matrix_tf_s"]["float32"]
        return f"{timing_words(timing)}; {flops_words(rate)}/s, {100 * share:.0f} %"
    rate = 2 * _frame_bytes(result) / seconds
    return f"{timing_words(timing)}; {bytes_words(rate)}/s, {100 * rate / 1e9 / limits['copy_gb_s']:.2f} %"


def _frame_bytes(result: Result) -> int:
    bucket = Bucket.parse(result["conditions"]["sizes"][0])
    return 3 * bucket.height * bucket.width * bucket.num_frames


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
        if "reason" in row:
            rows.append(f"| {words} | did not run: {row['reason']} | | | | | | | |\n")
            continue
        cells = [
            timing_words(row[phase]) if phase in row else ""
            for phase in ("import_s", "load_s", "first_step_s", "video_s")
        ]
        cells += [
            ratio_words(result["ratios"].get(name)),
            f"{100 * least_s / row['video_s']['median_s']:.1f} %" if "video_s" in row else "",
            *(bytes_words(row[k]) for k in ("now_bytes", "peak_bytes")),
        ]
        rows.append(f"| {words} | {' | '.join(cells)} |\n")
    notes = (
        f"Embedded model, fp32, {device_words(result)}; from the start of the process to the end of each ",
        f"phase, medians (20th to 80th percentile) of {processes['hyvideo_rt']['video_s']['runs']} turns; ",
        "diffusers compiled once, its cache empty; building the engines took ",
        f"{processes['engines']['build_s']:.0f} s before. The ratio is diffusers' first step over ours; ",
        "memory is the process's at its end and at most; the limit is ",
        f"{1e3 * least_s:.0f} ms, its files copied and its arithmetic at a large product's rate. ",
        f"`{result['conditions']['command']}`",
    )
    head = ("", "imported", "loaded", "first step", "first video", "ratio", "of the limit", "memory", "peak")
    return table(head, rows, notes)


def steps_table(stage: str, folder: str = "cpu") -> str:
    """Every rung at every size, of `denoise` or `decode`; a lossy one with what it does to videos."""
    result = load_steps(folder)
    tiny = result["conditions"]["weights"] == "tiny"
    steps, found = 20 if tiny else 50, [row for row in result["rows"] if row["stage"] == stage]
    rows = []
    for row in found:
        cells = [*_rung_cells(row), *([_projected(row, steps)] if stage == "denoise" else [])]
        name = " ".join(filter(None, (row["rung"], lossy_words(row["quality"], folder))))
        rows.append(f"| {row['size']} | {name} | {' | '.join(cells)} |\n")
    work = {row["size"]: 1e12 * row["tf_s"] * row["median_s"] for row in found if "tf_s" in row}
    amounts = ", ".join(f"{flops_words(flops)} at {size}" for size, flops in work.items())
    notes = (
        f"{'Embedded model' if tiny else 'Random weights'}, {device_words(result)}. It is {amounts}. ",
        "Medians (20th to 80th percentile); ratios are diffusers' time over the rung's, turn by turn, with ",
        "95 % intervals; the limit is what large products in the rung's precisions attain; differences are ",
        "of the results, relative, from diffusers'; memory is at most and kept, above what lay there ",
        f"before; the first call compiles where something is compiled. `{'`, `'.join(result['commands'])}`",
    )
    head = ["size", "", "time", "ratio", "attained, of the limit", "difference", "first call", "memory"]
    return table([*head, *([f"{steps} steps, projected"] if stage == "denoise" else [])], rows, notes)


def _rung_cells(row: Result) -> list[str]:
    if "reason" in row:
        return [f"did not run: {row['reason']}", "", "", "", "", ""]
    first = [f"{row['difference']:.0e}" if row.get("difference") else ""]
    first += [seconds_words(row["first_s"]) if "first_s" in row else "", memory_words(row)]
    if "median_s" not in row:
        return ["cut before its turn", "", "", *first]
    attained = f"{flops_words(1e12 * row['tf_s'])}/s, {100 * row['share_of_limit']:.0f} %"
    return [timing_words(row), ratio_words(row.get("ratio")), attained, *first]


def _projected(row: Result, steps: int) -> str:
    return seconds_words(steps * row["median_s"]) if "median_s" in row else ""


def engines_table(folder: str = "cpu") -> str:
    result = load(f"{folder}/engines.json")
    rows = []
    for each in result["backends"]:
        for row in each["rows"]:
            rows.append(f"| {each['backend']} | {row['size']} | {' | '.join(_engine_cells(result, row))} |\n")
    bound = [
        (b["backend"], seconds_words(b["bind_s"])) for b in result["backends"] if b["bind_s"] is not None
    ]
    notes = (
        f"{device_words(result)}: `{result['conditions']['command']}`. Build, file and load are of all ",
        "engines of a size, once each; memory is at most and kept, above what lay there before loading. ",
        "Steps and tiles are medians (20th to 80th percentile), then eager's time over the engines' own, ",
        "turn by turn, with its 95 % interval, what is attained, and its share of what a large product ",
        f"attains. Bind, once for all sizes: {', '.join(map(' '.join, bound))}.",
    )
    head = ("backend", "size", "build", "files", "load", "swap", "first step", "memory", "step", "VAE tile")
    return table(head, rows, notes)


def _engine_cells(result: Result, row: Result) -> list[str]:
    if "reason" in row:
        return [f"did not run: {row['reason']}", *[""] * 7]
    return [
        f"{row['build_s']:.0f} s",
        f"{row['bytes'] / 1e6:.1f} MB",
        seconds_words(row["load_s"]),
        f"{1e3 * row['swap_s']:.2f} ms",
        seconds_words(row["first_step_s"]),
        memory_words(row),
        *(_against_eager(result, row[name]) if name in row else "" for name in ("step", "tile")),
    ]


def _against_eager(result: Result, raced: Result) -> str:
    rate = raced["flops"] / raced["engines"]["median_s"]
    share = rate / 1e12 / result["limits"]["matrix_tf_s"]["float32"]
    words = (timing_words(raced["engines"]), ratio_words(raced["ratio"]), f"{flops_words(rate)}/s")
    return f"{'; '.join(words)}, {100 * share:.0f} %"


def request_table(folder: str = "cpu") -> str:
    """One whole request: its stages, its steps, and its memory."""
    result = load(f"{folder}/request.json")
    seconds, (size,), c = result["seconds"], result["conditions"]["sizes"], result["conditions"]
    shares = {stage: f"{100 * share:.0f} %" for stage, share in result["shares"].items()}
    names = STAGES | {"denoise": f"{c['steps']} steps"}
    rows = [
        f"| {words} | {seconds_words(seconds[stage])} | {shares.get(stage, '')} |\n"
        for stage, words in names.items()
        if stage in seconds
    ]
    if result["step"]:
        steps = [seconds_words(result["first_step_s"]), timing_words(result["step"])]
        rows.append(f"| of the steps: the first, the others | {', '.join(steps)} | |\n")
    rows.append(f"| memory: at most, kept | {memory_words(result)} | |\n")
    notes = (
        f"{size}, {'embedded model' if c['weights'] == 'tiny' else 'random weights'}, {c['precision']}, ",
        f"{result['ours']['kernels']}, {device_words(result)}; one request",
        "" if result["complete"] else ", cut before its end",
        f", the limit is what a large product attains. `{c['command']}`",
    )
    return table(("", "time", "of the limit"), rows, notes)


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
        f"Random weights, as inputs, fp32, {device_words(result)}. Medians (20th to 80th percentile), turn ",
        "by turn; ratios are eager's time over each, with 95 % intervals; shares are of what a large fp32 ",
        f"product attains. `{c['command']}`",
    )
    head = ("", "eager", f"ONNX Runtime {c['onnxruntime']}", f"OpenVINO {c['openvino'].split('-')[0]}")
    return table(head, rows, notes)


def loading_table() -> str:
    result = load("cpu/weights.json")
    rows = [
        f"| {r['layout']}, {r['precision']} | {r['checkpoint_gib']:.1f} GiB | {r['peak_ratio']:.2f} "
        f"| {r['least_ratio']:.2f} | {r['seconds']:.1f} s | {_copied(r):.1f} GB/s, "
        f"{100 * _copied(r) / result['copy_gb_s']:.0f} % |\n"
        for r in result["rows"]
    ]
    notes = (f"One run each. {device_words(result)}: `{result['conditions']['command']}`",)
    head = ("layout, as loaded", "checkpoint", "peak host memory / checkpoint", "least", "time", "of a copy")
    return table(head, rows, notes)


def _copied(row: Result) -> float:
    """GB/s, each byte of the checkpoint read once and written once."""
    return float(2 * row["checkpoint_gib"] * 2**30 / row["seconds"] / 1e9)
