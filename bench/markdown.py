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
    content: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return content


def table(head: Sequence[str], rows: Sequence[str], notes: Sequence[str]) -> str:
    rule = "|" + "---|" * len(head)
    return f"| {' | '.join(head)} |\n{rule}\n{''.join(rows)}\n{''.join(notes)}\n"


def ratio_of(row: Result) -> Ratio:
    """Of a row that may say more, such as whose time it is a ratio of."""
    return Ratio(row["median"], row["low"], row["high"], row["rounds"])


def ratio_words(ratio: Result | None) -> str:
    return str(ratio_of(ratio)) if ratio else ""


def cpu_words(result: Result) -> str:
    c = result["conditions"]
    return f"{c['threads']} threads of {c['cpu']}, torch {c['torch']}, commit {c['commit']}"


def timing_words(timing: Mapping[str, float]) -> str:
    median, p20, p80 = (timing[name] for name in ("median_s", "p20_s", "p80_s"))
    if median >= 1:
        return f"{median:.2f} s ({p20:.2f}-{p80:.2f})"
    return f"{1e3 * median:.1f} ms ({1e3 * p20:.1f}-{1e3 * p80:.1f})"
