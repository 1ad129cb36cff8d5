"""What lossy settings do to videos: the table of `bench.quality`, and words beside every lossy number."""

from typing import Any

from hyvideo_rt.bench import limits
from hyvideo_rt.bench.markdown import RESULTS, Result, cpu_words, load, table
from hyvideo_rt.bench.networks import PUBLISHED, TEXT_TOKENS
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS

H100, LARGEST = "NVIDIA H100 80GB HBM3", Bucket(720, 1280, 129)
JUDGED = ("colour", "shape", "direction", "all")
IN_8_BITS = {  # of the products of linear layers, and of attention
    "bf16": (0.0, 0.0),
    "8-bit weights": (0.0, 0.0),
    "8-bit products": (1.0, 0.0),
    "8-bit attention": (0.0, 1.0),
    "SageAttention (INT8)": (0.0, 0.5),
    "8-bit products and attention": (1.0, 1.0),
}


OF_ATTENTION = {"fa3-fp8": "8-bit attention", "sage": "SageAttention (INT8)"}  # by backend


def quality_table() -> str:
    result, layers = load("cpu/quality.json"), load("cpu/quality_layers.json")
    dense = " | ".join(f"{100 * result['bf16'][name]:.1f} %" for name in JUDGED)
    rows = [f"| bf16 | | | | {dense} | {least_step_s('bf16'):.1f} s |\n"]
    for name, row in result["settings"].items():
        points = " | ".join(_points(row["points"][each]) for each in JUDGED)
        least = f"{least_step_s(name):.1f} s" if name in IN_8_BITS else ""
        rows.append(
            f"| {name} | {row['psnr_db']:.1f} dB | {row['ssim']:.3f} "
            f"| {row['latent_error_mean']:.3f}, {row['latent_error_max']:.1f} | {points} | {least} |\n"
        )
    each = sorted(layers["psnr_db_each"].items(), key=lambda pair: pair[1])
    notes = (
        f"Embedded model, {result['prompts']} held-out prompts, each with its own seed, beside the same ",
        "videos in bf16: mean PSNR and SSIM; mean and largest error of the latents, in their standard ",
        "deviations; judged right, in percent points more or less than bf16, with the 95 % interval of a ",
        f"bootstrap over prompts. On a CPU with the arithmetic of a GPU. {cpu_words(result)}: ",
        f"`{result['conditions']['command']}`. The limit is what a step at {LARGEST} takes on an H100 at ",
        "the rates of its data sheet. One kind of layer in 8 bits: ",
        ", ".join(f"{name} {value:.1f}" for name, value in each),
        f" dB (commit {layers['conditions']['commit']}, `{layers['conditions']['command']}`).",
    )
    return table(("", "PSNR", "SSIM", "latents", *JUDGED, "limit"), rows, notes)


def quality_words(setting: str, folder: str = "cpu") -> str:
    """What this setting of `bench.quality` does to videos, against bf16: PSNR, SSIM, mean and largest error
    of the latents in their deviations, and the judge's verdict.

    By the kernels of the folder's device where they were judged, else in the same arithmetic on a CPU. Of
    "fp32" the other way round: what bf16 costs.
    """
    row = _judged(folder).get(setting, {})
    row = row if "points" in row else _judged("cpu")[setting]
    points = row["points"]["all"]
    if setting == "fp32":
        points = {"mean": -points["mean"], "low": -points["high"], "high": -points["low"]}
    return (
        f"{row['psnr_db']:.1f} dB, SSIM {row['ssim']:.3f}, latents off by {row['latent_error_mean']:.3f}, at "
        f"most {row['latent_error_max']:.1f}, right {_points(points)} points"
    )


def lossy_words(setting: str | None, folder: str = "cpu") -> str:
    """To stand beside a number; empty for what is not lossy."""
    return f"(lossy: {quality_words(setting, folder)})" if setting else ""


def _judged(folder: str) -> dict[str, Any]:
    path = RESULTS / folder / "quality.json"
    settings: dict[str, Any] = load(f"{folder}/quality.json")["settings"] if path.exists() else {}
    return settings


def least_step_s(setting: str) -> float:
    """Seconds of one step of the published model's products, each at its bits' rate."""
    config = MODELS[PUBLISHED].dit
    attention = config.attention_flops_per_step(LARGEST, TEXT_TOKENS["cuda"])
    linear = config.flops_per_step(LARGEST, TEXT_TOKENS["cuda"]) - attention
    narrow = sum(share * part for share, part in zip(IN_8_BITS[setting], (linear, attention), strict=True))
    wide_tf_s, narrow_tf_s = limits.DATA_SHEET[H100][16], limits.DATA_SHEET[H100][8]
    return (linear + attention - narrow) / wide_tf_s / 1e12 + narrow / narrow_tf_s / 1e12


def _points(points: Result) -> str:
    mean, low, high = (100 * points[name] for name in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
