"""The tables of operators, attention and the memory plan, which are of a GPU."""

from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.footprint import PROMPT_TOKENS, flops_of, planned_gib
from hyvideo_rt.bench.markdown import RESULTS, Result, device_words, load, ratio_words, table
from hyvideo_rt.bench.quality_tables import H100, lossy_words, quality_words
from hyvideo_rt.buckets import Bucket

STEPS = 50
CONTESTANTS = {"eager": "eager", "compile": "torch.compile", "triton": "ours"}
BITS = (16, 8)  # 16 for that and more


def gpu_table(folder: str = "h100") -> str:
    """Runs of one kind of GPU, one after the other: no ratios."""
    lines, notes = [], []
    for path in sorted((RESULTS / folder).glob("footprint*.json")):
        result = load(str(path))
        for row in result["rows"]:
            if row["stage"] == "encode" and not row["bucket"].startswith("720x1280"):
                continue
            what = {
                "encode": f"LLM, {PROMPT_TOKENS} tokens",
                "denoise": "one step",
                "decode": "VAE decode",
            }[row["stage"]]
            size = "" if row["stage"] == "encode" else row["bucket"]
            lines.append(
                f"| {what} | {size} | {result['kernels']} | {_seconds(row)} | {_projected(row)} "
                f"| {_footprint_attained(result, row)} | {row['activations_gib']:.1f} GiB "
                f"| {planned_gib(row['stage'], Bucket.parse(row['bucket'])):.1f} GiB |\n"
            )
        limit = "what a large product attains" if "limits" in result else "the data sheet's"
        notes.append(
            f"{result['kernels']}: {device_words(result)}, the limit is {limit}: "
            f"`{result['conditions']['command']}`. "
        )
    start = (
        "bf16 (VAE and LLM fp16), random weights, no engines; times without percentiles are of one run ",
        "after a small warm-up. ",
    )
    head = (
        "stage",
        "size",
        "kernels, attention",
        "time",
        f"{STEPS} steps, projected",
        "TF/s, of the limit",
        "activations",
        "planned",
    )
    return table(head, lines, (*start, *notes))


def _seconds(row: Result) -> str:
    spread = f" ({row['p20_s']:.2f}-{row['p80_s']:.2f})" if "p20_s" in row else ""
    return f"{row['seconds']:.2f} s{spread}"


def _projected(row: Result) -> str:
    """So many times the one that was measured: nothing else was run."""
    return f"{STEPS * row['seconds']:.0f} s" if row["stage"] == "denoise" else ""


def _footprint_attained(result: Result, row: Result) -> str:
    flops = flops_of(row["stage"], Bucket.parse(row["bucket"])).total
    peak = result["limits"]["matrix_tf_s"]["bfloat16"] if "limits" in result else _data_sheet(16)
    tf_s = flops / row["seconds"] / 1e12
    return f"{tf_s:.0f}, {100 * tf_s / peak:.0f} %"


def kernels_table(folder: str = "h100") -> str:
    result = load(f"{folder}/kernels.json")
    names = [name for name in CONTESTANTS if name in result["memory"][0]]
    last, rows = names[-1], []
    for row in result["memory"]:
        cells = [_gb_s(row, name, row.get("ratios", {})) for name in names]
        share = 100 * row[last]["gb_s"] / result["limits"]["copy_gb_s"]
        title = " ".join(filter(None, (row["kernel"], lossy_words(row["quality"], folder))))
        rows.append(f"| {title} | {' | '.join(cells)} | {share:.0f} % |\n")
    notes = (
        "GB/s (the DiT's operators at the largest size, the VAE's at sizes inside a full tile), medians of ",
        "10 calls, turn by turn, the 20th to 80th percentile in brackets where it was kept, then the time ",
        f"over that of {CONTESTANTS[last]} with its 95 % interval; a copy moves ",
        f"{result['limits']['copy_gb_s']:.0f} GB/s. {device_words(result)}: ",
        f"`{result['conditions']['command']}`",
    )
    return table(
        ("operator", *(CONTESTANTS[name] for name in names), f"{CONTESTANTS[last]}, of a copy"), rows, notes
    )


def _gb_s(row: Result, name: str, ratios: Result) -> str:
    timing = row[name]
    words = f"{timing['gb_s']:.0f}"
    if "p20_ms" in timing:
        slow, fast = (row["bytes"] / timing[each] / 1e6 for each in ("p80_ms", "p20_ms"))
        words += f" ({slow:.0f}-{fast:.0f})"
    return f"{words}, {ratio_words(ratios[name])}" if name in ratios else words


def attention_table(folder: str = "h100") -> str:
    result = load(f"{folder}/kernels.json")
    found = {(row["backend"], row["size"]): row for row in result["attention"]}
    sizes = sorted(dict.fromkeys(size for _, size in found), key=lambda size: -Bucket.parse(size).num_tokens)
    ran = [row for row in result["attention"] if "tf_s" in row and row["size"] == sizes[0]]
    rows = []
    for row in sorted(ran, key=lambda row: float(row["ms"])):
        cells = [_attained(result, found[row["backend"], size]) for size in sizes]
        videos = quality_words(row["quality"], folder) if row["quality"] else ""
        rows.append(
            f"| {row['backend']} | {row['bits']} | {' | '.join(cells)} | {row['relative_error']:.1e} "
            f"| {videos} |\n"
        )
    reasons = {f"{r['backend']} did not run: {r['error']}. " for r in result["attention"] if "error" in r}
    notes = (
        "One call, 24 heads of 128, with 256 text tokens; the rounding to 8 bits is part of it. The 20th to ",
        "80th percentile in brackets where it was kept, then the time of sdpa over each with its 95 % ",
        "interval. Errors are against fp64 on 60 rows of 3 heads, of inputs with the outliers that make 8 ",
        "bits hard; what 8 bits do to videos is of the embedded model. The limit is ",
        f"{_limit_words(result)}, each product at the rate of its bits: of SageAttention's two only the ",
        f"first is in 8. {''.join(sorted(reasons))}{device_words(result)}: ",
        f"`{result['conditions']['command']}`",
    )
    times = [word for size in sizes for word in (size, "TF/s, of the limit")]
    return table(("attention", "bits", *times, "relative error", "videos"), rows, notes)


def _attained(result: Result, row: Result) -> str:
    """Two cells."""
    if "tf_s" not in row:
        return " | "
    spread = f" ({row['p20_ms']:.0f}-{row['p80_ms']:.0f})" if "p20_ms" in row else ""
    ratio = f", {ratio_words(row['ratio'])}" if "ratio" in row else ""
    flops = work.Flops(0, round(1e9 * row["tf_s"] * row["ms"]))
    least_s = limits.least_s(flops, row["quality"], {bits: peak_tf_s(result, bits) for bits in BITS})
    share = 100 * least_s / (1e-3 * row["ms"])
    return f"{row['ms']:.0f} ms{spread}{ratio} | {row['tf_s']:.0f}, {share:.0f} %"


def peak_tf_s(result: Result, bits: int) -> float:
    """TF/s of a large product, as measured with the result; where it was not, of the data sheet."""
    wide = "float32" if result["conditions"].get("precision") == "fp32" else "bfloat16"
    names = {16: wide, 8: "float8_e4m3fn"}
    measured: float | None = result["limits"]["matrix_tf_s"].get(names[bits])
    return measured or _data_sheet(bits)


def _data_sheet(bits: int) -> float:
    peak = limits.data_sheet(H100, bits)
    assert peak
    return peak


def _limit_words(result: Result) -> str:
    source = "a large product's rate" if result["limits"]["matrix_tf_s"] else "the data sheet's"
    return f"{source} ({peak_tf_s(result, 16):.0f} TF/s in 16 bits, {peak_tf_s(result, 8):.0f} in 8)"
