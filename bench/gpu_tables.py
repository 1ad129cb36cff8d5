"""The tables of results on a GPU."""

from typing import Any

from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.footprint import planned_gib
from hyvideo_rt.bench.markdown import Result, load, table
from hyvideo_rt.bench.networks import PUBLISHED, TEXT_TOKENS
from hyvideo_rt.bench.quality_tables import H100, quality_words
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS

QUALITY = {"fa3-fp8": "8-bit attention", "sage": "SageAttention (INT8)"}  # settings of bench.quality
STEPS = 50


def gpu_table() -> str:
    """Runs of one kind of GPU, one after the other: no ratios."""
    lines, notes = [], []
    for name in ("footprint", "footprint_triton"):
        result = load(f"h100/{name}.json")
        for row in result["rows"]:
            if row["stage"] == "encode" and not row["bucket"].startswith("720x1280"):
                continue
            what = {"encode": "LLM, 351 tokens", "denoise": "one step", "decode": "VAE decode"}[row["stage"]]
            size = "" if row["stage"] == "encode" else row["bucket"]
            lines.append(
                f"| {what} | {size} | {result['kernels']} | {row['seconds']:.2f} s | {_projected(row)} "
                f"| {_attained(row)} | {row['activations_gib']:.1f} GiB "
                f"| {planned_gib(row['stage'], Bucket.parse(row['bucket'])):.1f} GiB |\n"
            )
        c = result["conditions"]
        notes.append(f"{result['kernels']}: commit {c['commit']}, `{c['command']}`. ")
    start = (
        f"{_gpu_words(c)}, bf16 (VAE and LLM fp16), random weights, no engines, one run each after a small ",
        "warm-up. ",
    )
    head = (
        "stage",
        "size",
        "kernels, attention",
        "time",
        f"{STEPS} steps, projected",
        "TF/s, of the data sheet",
        "activations",
        "planned",
    )
    return table(head, lines, (*start, *notes))


def _projected(row: Result) -> str:
    """So many times the one that was measured: nothing else was run."""
    return f"{STEPS * row['seconds']:.0f} s" if row["stage"] == "denoise" else ""


def _attained(row: Result) -> str:
    """Of the card's 16-bit products: these runs measured no limit of their own."""
    config, bucket = MODELS[PUBLISHED], Bucket.parse(row["bucket"])
    flops = {
        "encode": lambda: work.encode_flops(config, 351),
        "denoise": lambda: work.step_flops(config, bucket, TEXT_TOKENS["cuda"]),
        "decode": lambda: work.decode_flops(config, bucket),
    }[row["stage"]]()
    tf_s = flops / row["seconds"] / 1e12
    peak = limits.data_sheet(H100, 16)
    assert peak
    return f"{tf_s:.0f}, {100 * tf_s / peak:.0f} %"


def kernels_table() -> str:
    result = load("h100/kernels.json")
    copy = result["limits"]["copy_gb_s"]
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
    return table(("operator", "eager", "torch.compile", "ours", "of a copy"), rows, notes)


def attention_table() -> str:
    result = load("h100/kernels.json")
    ran = [row for row in result["attention"] if "tf_s" in row]
    large, small = (
        {r["backend"]: r for r in ran if r["size"].startswith(s)} for s in ("720x1280", "544x960")
    )
    rows = [
        f"| {name} | {row['bits']} | {row['ms']:.0f} ms, {row['tf_s']:.0f} TF/s "
        f"| {small[name]['ms']:.0f} ms, {small[name]['tf_s']:.0f} TF/s "
        f"| {100 * row['tf_s'] / _peak(result, row['bits']):.0f} % | {row['relative_error']:.1e} "
        f"| {quality_words(QUALITY[name]) if name in QUALITY else ''} |\n"
        for name, row in sorted(large.items(), key=lambda pair: pair[1]["ms"])
    ]
    c = result["conditions"]
    notes = (
        "One call, 24 heads of 128, with 256 text tokens; the rounding to 8 bits is part of it. Errors are ",
        "against fp64 on 60 rows of 3 heads, of inputs with the outliers that make 8 bits hard; what 8 bits ",
        "do to videos is of the embedded model, in the same arithmetic on a CPU. The limit is ",
        f"{_limit_words(result)}. {_gpu_words(c)}, commit {c['commit']}: `{c['command']}`",
    )
    head = ("attention", "bits", "720x1280x129", "544x960x129", "of the limit", "relative error", "videos")
    return table(head, rows, notes)


def _peak(result: Result, bits: int) -> float:
    """TF/s of a large product, as measured with the result; where it was not, of the data sheet."""
    measured: float | None = result["limits"]["matrix_tf_s"].get({16: "bfloat16", 8: "float8_e4m3fn"}[bits])
    peak = measured or limits.data_sheet(H100, bits)
    assert peak
    return peak


def _limit_words(result: Result) -> str:
    source = "a large product's rate" if result["limits"]["matrix_tf_s"] else "the data sheet's"
    return f"{source}: {_peak(result, 16):.0f} TF/s in 16 bits, {_peak(result, 8):.0f} in 8"


def _gpu_words(conditions: dict[str, Any]) -> str:
    gpu, driver, power, *_ = conditions["gpu"].split(", ")
    return f"{gpu}, {power} cap, driver {driver}, torch {conditions['torch']}"
