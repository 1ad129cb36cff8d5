"""Writes the tables of README.md and docs/ from `bench/results/`: `python -m hyvideo_rt.bench.readme`.

Each table stands between `<!-- NAME -->` and `<!-- end -->`. With --check nothing is written and the exit
status says whether all files are up to date.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping

from hyvideo_rt.bench.gpu_tables import attention_table, gpu_table, kernels_table
from hyvideo_rt.bench.markdown import ROOT
from hyvideo_rt.bench.quality_tables import quality_table
from hyvideo_rt.bench.server_tables import server_table, stress_table
from hyvideo_rt.bench.tables import (
    cpu_table,
    engines_table,
    graphs_table,
    loading_table,
    startup_table,
    steps_table,
)

FILES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"cpu": cpu_table, "engines": engines_table, "gpu": gpu_table},
    "docs/benchmarks.md": {
        "startup": startup_table,
        "longer": functools.partial(cpu_table, "end_to_end_33"),
        "steps": steps_table,
        "quality": quality_table,
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
    args = parser.parse_args()
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
