"""Pictures of results: `python -m hyvideo_rt.bench.plots FOLDER docs/cpu` writes docs/cpu-*.png.

Of steps*.json the latency by size against the device's limit, and the waterfall of one optimisation after the
other; of request.json the timeline of one request; of kernels.json the operators and attention. What the
folder lacks is not drawn. Under each picture stands what its lossy numbers do to videos.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hyvideo_rt.bench.gpu_tables import BITS, peak_tf_s
from hyvideo_rt.bench.markdown import Result, load, load_steps
from hyvideo_rt.bench.quality_tables import quality_words
from hyvideo_rt.bench.work import IN_8_BITS
from hyvideo_rt.errors import InvalidRequest

COLOURS = {"encode": "tab:green", "denoise": "tab:blue", "decode": "tab:orange", "write": "tab:red"}
Rows = list[Result]  # that were drawn
LIMIT_STYLES: tuple[Any, ...] = (":", "-.", (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 4)))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, metavar="FOLDER")
    parser.add_argument("target", help="start of the pictures' names")
    args = parser.parse_args()
    folder = args.results.resolve()
    there = {name: each for name, each in PICTURES.items() if any(folder.glob(each[0]))}
    if not there:
        names = ", ".join(sorted({pattern for pattern, _ in PICTURES.values()}))
        raise InvalidRequest(f"got {args.results}, which has nothing to draw; expected one of {names}")
    for name, (pattern, draw) in there.items():
        result = load_steps(str(folder)) if pattern == STEPS else load(str(folder / pattern))
        path = Path(f"{args.target}-{name}.png")
        _saved(draw, result, folder, path)
        print(path)
    return 0


def latency(result: Result, axis: Any) -> Rows:
    """A step of every size: a line per rung, and what the limit allows in each of their precisions."""
    rows = [row for row in result["rows"] if row["stage"] == "denoise" and "median_s" in row]
    limits: dict[str, dict[int, float]] = {}
    for rung in dict.fromkeys(row["rung"] for row in rows):
        of_rung = sorted((r for r in rows if r["rung"] == rung), key=lambda row: int(row["tokens"]))
        style = "o--" if of_rung[0]["quality"] else "o-"
        label = _marked(rung, of_rung[0])
        axis.plot([r["tokens"] for r in of_rung], [1e3 * r["median_s"] for r in of_rung], style, label=label)
        for row in of_rung:
            limits.setdefault(_precision(row), {})[row["tokens"]] = 1e3 * row["least_s"]
    for i, (precision, floor) in enumerate(limits.items()):
        dashes = LIMIT_STYLES[i % len(LIMIT_STYLES)]
        tokens = sorted(floor)
        axis.plot(
            tokens,
            [floor[n] for n in tokens],
            ls=dashes,
            marker="_",
            color="black",
            label=f"limit, {precision}",
        )
    axis.set_xlabel("image tokens")
    axis.set_ylabel("ms per step")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return rows


def waterfall(result: Result, axis: Any) -> Rows:
    """The largest size: one thing added at a time."""
    denoise = [row for row in result["rows"] if row["stage"] == "denoise" and "median_s" in row]
    largest = max(row["tokens"] for row in denoise)
    rows = [row for row in denoise if row["tokens"] == largest]
    times = [1e3 * row["median_s"] for row in rows]
    bars = axis.barh([_marked(row["rung"], row) for row in rows], times, color=_colours(rows))
    axis.bar_label(
        bars,
        [
            f"{time:.3g} ms, {100 * row['share_of_limit']:.0f} % of limit"
            for time, row in zip(times, rows, strict=True)
        ],
    )
    axis.set_xlim(right=1.35 * max(times))
    axis.set_xlabel(f"ms per step at {rows[0]['size']}")
    axis.invert_yaxis()
    return rows


def request(result: Result, axis: Any) -> Rows:
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
    return []


def operators(result: Result, axis: Any) -> Rows:
    """GB/s of each operator beside the copy's."""
    rows = result["memory"]
    contestants = [name for name in ("eager", "compile", "triton") if name in rows[0]]
    for i, name in enumerate(contestants):
        places = [j + 0.25 * i for j in range(len(rows))]
        axis.barh(places, [row[name]["gb_s"] for row in rows], 0.25, label=name)
    axis.set_yticks(range(len(rows)), [_marked(row["kernel"], row) for row in rows], fontsize="small")
    axis.axvline(result["limits"]["copy_gb_s"], color="black", linestyle=":", label="copy")
    axis.set_xlabel("GB/s")
    axis.invert_yaxis()
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return list(rows)


def attention(result: Result, axis: Any) -> Rows:
    """TF/s of each attention at each size beside what large products attain."""
    rows = [row for row in result["attention"] if "tf_s" in row]
    labels = [_marked(f"{row['backend']} {row['size']}", row) for row in rows]
    bars = axis.barh(labels, [row["tf_s"] for row in rows], color=_colours(rows))
    axis.bar_label(bars, [f"{row['ms']:.3g} ms" for row in rows])
    for bits, style in zip(BITS, LIMIT_STYLES, strict=False):
        axis.axvline(peak_tf_s(result, bits), color="black", ls=style, label=f"limit, {bits} bits")
    axis.set_xlabel("TF/s")
    axis.invert_yaxis()
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return rows


STEPS = "steps*.json"
PICTURES: dict[str, tuple[str, Callable[[Result, Any], Rows]]] = {
    "latency": (STEPS, latency),
    "waterfall": (STEPS, waterfall),
    "timeline": ("request.json", request),
    "operators": ("kernels.json", operators),
    "attention": ("kernels.json", attention),
}


def lossy_notes(rows: Rows, folder: Path) -> list[str]:
    """A line for every setting of `bench.quality` that a row names."""
    settings = dict.fromkeys(row["quality"] for row in rows if row["quality"])
    names = {s: "bf16 instead of fp32" if s == "fp32" else s for s in settings}
    return [f"lossy, {name}: {quality_words(s, str(folder))}" for s, name in names.items()]


def _marked(name: str, row: Result) -> str:
    return f"{name} (lossy)" if row["quality"] else name


def _colours(rows: Iterable[Result]) -> list[str]:
    return ["tab:orange" if row["quality"] else "tab:blue" for row in rows]


def _precision(row: Result) -> str:
    """Whose rates its limit is made of."""
    narrow = any(IN_8_BITS.get(row["quality"], ()))
    return f"{row['dtype']}, {row['quality']}" if narrow else str(row["dtype"])


def _saved(draw: Callable[[Result, Any], Rows], result: Result, folder: Path, path: Path) -> None:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(10, 5))
    notes = lossy_notes(draw(result, axis), folder)
    c = result["conditions"]
    axis.set_title(f"{c.get('gpu') or c['cpu']}, torch {c['torch']}, commit {c['commit']}", fontsize="small")
    figure.tight_layout(rect=(0, 0.04 * len(notes), 1, 1))
    figure.text(0.01, 0.01, "\n".join(notes), fontsize="x-small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
