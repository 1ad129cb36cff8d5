"""What lossy settings do to videos: the table of `bench.quality`, and words beside every lossy number."""

from collections.abc import Sequence
from typing import Any

from hyvideo_rt.bench import limits, work
from hyvideo_rt.bench.markdown import RESULTS, Result, device_words, load, table
from hyvideo_rt.bench.networks import PUBLISHED, TEXT_TOKENS
from hyvideo_rt.bench.quality_settings import CALIBRATED
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS

H100, LARGEST = "NVIDIA H100 80GB HBM3", Bucket(720, 1280, 129)
JUDGED = ("colour", "shape", "direction", "all")
OF_ATTENTION = {  # by backend
    "fa3-fp8": "8-bit attention",
    "cudnn-fp8": "8-bit attention and output",
    "sage": "SageAttention (INT8)",
}


def quality_table(folder: str = "cpu") -> str:
    result, *further = runs = _runs(folder)
    c = result["conditions"]
    dense = " | ".join(f"{100 * result['bf16'][name]:.1f} %" for name in JUDGED)
    rows = [f"| bf16 | | | | {dense} | {least_step_s('bf16'):.1f} s |\n"]
    for name, row in _settings(runs).items():
        rounds = name.removesuffix(CALIBRATED)
        least = f"{least_step_s(rounds):.1f} s" if rounds in work.IN_8_BITS else ""
        rows.append(f"| {name} | {_quality_cells(row)} | {least} |\n")
    notes = (
        f"Embedded model, {result['prompts']} held-out prompts, each with its own seed, beside the same ",
        "videos in bf16: mean PSNR and SSIM; mean and largest error of the latents, in their standard ",
        "deviations; judged right, in percent points more or less than bf16, with the 95 % interval of a ",
        "bootstrap over prompts. ",
        "By the GPU's own kernels" if "gpu" in c else "On a CPU with the arithmetic of a GPU",
        f". {device_words(result)}: `{c['command']}`. The least a step at {LARGEST} can ",
        "take is on an H100, at the rates of its data sheet.",
        " Calibrated: weights rounded by `hyvideo-rt quantise`." if _calibrated(further) else "",
        *(f" {'; '.join(run['settings'])}: {_source(run)}." for run in further),
        _layers_words(folder),
    )
    head = ("", "PSNR", "SSIM", "latents", *JUDGED, f"a step at {LARGEST}, at least")
    return table(head, rows, notes)


def _quality_cells(row: Result) -> str:
    if "reason" in row:
        return f"did not run: {row['reason']}" + " |" * (len(JUDGED) + 2)
    points = " | ".join(_points(row["points"][each]) for each in JUDGED)
    latents = f"{row['latent_error_mean']:.3f}, {row['latent_error_max']:.1f}"
    return f"{row['psnr_db']:.1f} dB | {row['ssim']:.3f} | {latents} | {points}"


def _runs(folder: str) -> list[Result]:
    """Of all settings, then those of some on the same prompts."""
    if not (RESULTS / folder / "quality.json").exists():
        return []
    first = load(f"{folder}/quality.json")
    names = sorted(path.name for path in (RESULTS / folder).glob("quality_*.json"))
    others = [load(f"{folder}/{name}") for name in names]
    return [first, *(run for run in others if run["prompts"] == first["prompts"])]


def _settings(runs: Sequence[Result]) -> dict[str, Any]:
    return {name: row for run in runs for name, row in run["settings"].items()}


def _calibrated(runs: Sequence[Result]) -> bool:
    return any(name.endswith(CALIBRATED) for name in _settings(runs))


def _source(result: Result) -> str:
    c = result["conditions"]
    return f"commit {c['commit']}, `{c['command']}`"


def _layers_words(folder: str) -> str:
    """One kind of layer in 8 bits at a time, where that was measured."""
    name = f"{folder}/quality_layers.json"
    if not (RESULTS / name).exists():
        return ""
    layers = load(name)
    each = sorted(layers["psnr_db_each"].items(), key=lambda pair: pair[1])
    found = ", ".join(f"{name} {value:.1f}" for name, value in each)
    return f" One kind of layer in 8 bits: {found} dB ({_source(layers)})."


def quality_words(setting: str, folder: str = "cpu") -> str:
    """What this setting of `bench.quality` does to videos, against bf16: PSNR, SSIM, mean and largest error
    of the latents in their deviations, and the judge's verdict.

    By the kernels of the folder's device where they were judged, else in the same arithmetic on a CPU. Of
    "fp32" the other way round: what bf16 costs.
    """
    row = _judged(folder).get(setting, {})
    row = row if "points" in row else _judged("cpu").get(setting, {})
    if not row:
        return "what it does to videos was not judged yet"
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
    return _settings(_runs(folder))


def least_step_s(setting: str) -> float:
    """Seconds of one step of the published model, at the rates of a data sheet."""
    flops = work.step_parts(MODELS[PUBLISHED], LARGEST, TEXT_TOKENS["cuda"])
    return limits.least_s(flops, setting, limits.DATA_SHEET[H100])


def _points(points: Result) -> str:
    mean, low, high = (100 * points[name] for name in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
