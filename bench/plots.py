"""Pictures of results: `python -m hyvideo_rt.bench.plots FOLDER docs/cpu` writes docs/cpu-*.png.

Of steps.json the latency by size against the device's limit, and the waterfall of one optimisation after the
other; of request.json the timeline of one request. What the folder lacks is not drawn.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hyvideo_rt.bench import work
from hyvideo_rt.bench.networks import PUBLISHED
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS
from hyvideo_rt.errors import InvalidRequest

COLOURS = {"encode": "tab:green", "denoise": "tab:blue", "decode": "tab:orange", "write": "tab:red"}
Result = Mapping[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, metavar="FOLDER")
    parser.add_argument("target", help="start of the pictures' names")
    args = parser.parse_args()
    if not any((args.results / result).exists() for result, _ in PICTURES.values()):
        names = ", ".join(sorted({result for result, _ in PICTURES.values()}))
        raise InvalidRequest(f"got {args.results}, which has nothing to draw; expected one of {names}")
    for name, (result, draw) in PICTURES.items():
        if (args.results / result).exists():
            path = Path(f"{args.target}-{name}.png")
            _saved(draw, json.loads((args.results / result).read_text()), path)
            print(path)
    return 0


def latency(result: Result, axis: Any) -> None:
    """A step of every size: a line per rung, and what the limit allows."""
    rows = [row for row in result["rows"] if row["stage"] == "denoise" and "median_s" in row]
    for rung in dict.fromkeys(row["rung"] for row in rows):
        of_rung = sorted((r for r in rows if r["rung"] == rung), key=lambda row: int(row["tokens"]))
        style = "o--" if of_rung[0]["quality"] else "o-"
        axis.plot([r["tokens"] for r in of_rung], [1e3 * r["median_s"] for r in of_rung], style, label=rung)
    for dtype, tf_s in result["limits"]["matrix_tf_s"].items():
        if dtype in {row["dtype"] for row in rows}:
            sizes = sorted({(row["tokens"], row["size"]) for row in rows})
            floor = [1e3 * _flops(result, size) / tf_s / 1e12 for _, size in sizes]
            axis.plot([tokens for tokens, _ in sizes], floor, ":", color="black", label=f"limit, {dtype}")
    axis.set_xlabel("image tokens")
    axis.set_ylabel("ms per step")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def waterfall(result: Result, axis: Any) -> None:
    """The largest size: one thing added at a time."""
    denoise = [row for row in result["rows"] if row["stage"] == "denoise" and "median_s" in row]
    largest = max(row["tokens"] for row in denoise)
    rows = [row for row in denoise if row["tokens"] == largest]
    times = [1e3 * row["median_s"] for row in rows]
    bars = axis.barh(
        [row["rung"] + (" (lossy)" if row["quality"] else "") for row in rows],
        times,
        color=["tab:orange" if row["quality"] else "tab:blue" for row in rows],
    )
    axis.bar_label(
        bars,
        [f"{time:.3g} ms, {100 * r['share']:.0f} % of limit" for time, r in zip(times, rows, strict=True)],
    )
    axis.set_xlim(right=1.35 * max(times))
    axis.set_xlabel(f"ms per step at {rows[0]['size']}")
    axis.invert_yaxis()


def request(result: Result, axis: Any) -> None:
    """Each step and each tile as a bar from the end of the one before."""
    last = 0.0
    for moment in result["timeline"]:
        if moment["done"]:
            width = moment["at_s"] - last
            axis.barh(moment["stage"], width, left=last, color=COLOURS[moment["stage"]], edgecolor="white")
        last = moment["at_s"]
    seconds, c = result["seconds"], result["conditions"]
    axis.set_xlabel(f"seconds; {c['sizes'][0]}, {c['steps']} steps, {seconds['video']:.3g} s in all")
    axis.invert_yaxis()


PICTURES: dict[str, tuple[str, Callable[[Result, Any], None]]] = {
    "latency": ("steps.json", latency),
    "waterfall": ("steps.json", waterfall),
    "timeline": ("request.json", request),
}


def _flops(result: Result, size: str) -> int:
    config = MODELS["tiny" if result["conditions"]["weights"] == "tiny" else PUBLISHED]
    return work.step_flops(config, Bucket.parse(size), result["text_tokens"])


def _saved(draw: Callable[[Result, Any], None], result: Result, path: Path) -> None:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 4))
    draw(result, axis)
    c = result["conditions"]
    axis.set_title(f"{c.get('gpu') or c['cpu']}, torch {c['torch']}, commit {c['commit']}", fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
