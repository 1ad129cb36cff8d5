"""What the tables of results share: a result is read, Markdown comes back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyvideo_rt.bench.timing import Ratio

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
Result = Mapping[str, Any]


def load(name: str) -> dict[str, Any]:
    """`cpu/steps.json` of the committed results, or any other file by its whole path."""
    content: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return content


def load_steps(folder: str) -> dict[str, Any]:
    """Its `steps*.json` as one: rows and commands of all, what else they say of the first.

    A rung that several have, such as the one that all ratios are to, is there once: the first that was timed.
    """
    parts = [load(str(path)) for path in sorted((RESULTS / folder).glob("steps*.json"))]
    commands = [part["conditions"]["command"] for part in parts]
    rows: dict[tuple[str, str, str], Result] = {}
    for row in (row for part in parts for row in part["rows"]):
        key = (row["stage"], row["size"], row["rung"])
        if "median_s" not in rows.get(key, {}):
            rows[key] = row
    return parts[0] | {"rows": list(rows.values()), "commands": commands}


def table(head: Sequence[str], rows: Sequence[str], notes: Sequence[str]) -> str:
    rule = "|" + "---|" * len(head)
    return f"| {' | '.join(head)} |\n{rule}\n{''.join(rows)}\n{''.join(notes)}\n"


def ratio_of(row: Result) -> Ratio:
    """Of a row that may say more, such as whose time it is a ratio of."""
    return Ratio(row["median"], row["low"], row["high"], row["rounds"])


def ratio_words(ratio: Result | None) -> str:
    return str(ratio_of(ratio)) if ratio else ""


def device_words(result: Result) -> str:
    c = result["conditions"]
    if "gpu" in c:
        gpu, driver, power, *_ = c["gpu"].split(", ")
        clock = f", {c['gpu_under_load']['clocks.sm']} under load" if "gpu_under_load" in c else ""
        return f"{gpu}, {power} cap{clock}, driver {driver}, torch {c['torch']}, commit {c['commit']}"
    return f"{cpu_words(c)}, torch {c['torch']}, commit {c['commit']}"


def cpu_words(about: Result) -> str:
    """Of a result's conditions on a CPU."""
    threads = about["threads"]
    return f"{threads} thread{'' if threads == 1 else 's'} of {about['cpu']}"


def seconds_words(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def timing_words(timing: Mapping[str, float]) -> str:
    """The median, and in brackets the 20th and the 80th percentile; of one run that alone."""
    median, p20, p80 = (timing[name] for name in ("median_s", "p20_s", "p80_s"))
    if timing["runs"] == 1:
        return seconds_words(median)
    if median >= 1:
        return f"{median:.2f} s ({p20:.2f}-{p80:.2f})"
    return f"{1e3 * median:.1f} ms ({1e3 * p20:.1f}-{1e3 * p80:.1f})"


def memory_words(row: Result) -> str:
    """Peak, and what is kept: of the device where there is one, else of the host."""
    of = "host" if row.get("device_peak_bytes") is None else "device"
    found = [row.get(f"{of}_{name}_bytes") for name in ("peak", "steady")]
    return ", ".join(bytes_words(each) for each in found if each is not None)


def bytes_words(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def flops_words(flops: float) -> str:
    """Operations; with /s behind it, of a second."""
    for unit, name in ((1e15, "PF"), (1e12, "TF"), (1e9, "GF")):
        if flops >= unit:
            return f"{flops / unit:.3g} {name}"
    return f"{flops / 1e6:.3g} MF"
