"""Writes the tables of README.md and docs/ from `bench/results/`: `python -m hyvideo_rt.bench.readme`.

Each table stands between `<!-- NAME -->` and `<!-- end -->`. With --check nothing is written and the exit
status says whether all files are up to date. With --of FOLDER nothing is written either: the tables of what
that folder has are printed, such as those of a `gpu-suite`.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from hyvideo_rt.bench.gpu_tables import attention_table, gpu_table, kernels_table
from hyvideo_rt.bench.markdown import RESULTS, ROOT
from hyvideo_rt.bench.quality_tables import quality_table
from hyvideo_rt.bench.server_tables import server_table, stress_table
from hyvideo_rt.bench.tables import (
    cpu_table,
    engines_table,
    graphs_table,
    loading_table,
    request_table,
    startup_table,
    steps_table,
)

OF_A_DEVICE: dict[str, tuple[str, Callable[[str], str]]] = {  # title: what it is made of, and how
    "One step": ("steps*.json", functools.partial(steps_table, "denoise")),
    "One decode": ("steps*.json", functools.partial(steps_table, "decode")),
    "A whole request": ("request.json", request_table),
    "Engines": ("engines.json", engines_table),
    "What 8 bits do to videos": ("quality.json", quality_table),
    "Operators": ("kernels.json", kernels_table),
    "Attention": ("kernels.json", attention_table),
    "Memory": ("footprint*.json", gpu_table),
}
ELSEWHERE = ("Operators", "Attention", "Memory")  # of the H100: these have places of their own


def suite_tables(folder: str, leave_out: tuple[str, ...] = ()) -> str:
    """Every table that a device's folder has results for, each under its title."""
    there = {
        title: make
        for title, (pattern, make) in OF_A_DEVICE.items()
        if title not in leave_out and any((RESULTS / folder).glob(pattern))
    }
    return "\n".join(f"{title}:\n\n{make(folder)}" for title, make in there.items()) or "None yet.\n"


FILES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"cpu": cpu_table, "engines": engines_table, "gpu": gpu_table},
    "docs/benchmarks.md": {
        "startup": startup_table,
        "longer": functools.partial(cpu_table, "end_to_end_33"),
        "steps": functools.partial(steps_table, "denoise"),
        "decode": functools.partial(steps_table, "decode"),
        "request": request_table,
        "quality": quality_table,
        "h100": functools.partial(suite_tables, "h100", ELSEWHERE),
        "kernels": kernels_table,
        "attention": attention_table,
        "server": server_table,
        "stress": stress_table,
        "loading": loading_table,
    },
    "docs/engines.md": {"graphs": graphs_table},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--of", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    if args.of:
        print(suite_tables(str(args.of.resolve())))
        return 0
    stale = False
    for name, tables in FILES.items():
        path = ROOT / name
        text = path.read_text()
        new = with_tables(text, tables, name)
        stale |= new != text
        if not args.check:
            path.write_text(new)
    return int(args.check and stale)


def with_tables(text: str, tables: Mapping[str, Callable[[], str]], file: str) -> str:
    for name, make in tables.items():
        head, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition("<!-- end -->")
        if not (start and end):
            raise SystemExit(f"{file} has no place for a table: <!-- {name} --> ... <!-- end -->")
        text = head + start + make() + end + tail
    return text


if __name__ == "__main__":
    sys.exit(main())
