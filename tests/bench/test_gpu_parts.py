"""What the suite calls is there, fits its time, and writes what tables and plots read."""

import argparse
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hyvideo_rt.bench.gpu_outcomes import Outcome
from hyvideo_rt.bench.gpu_parts import FEW, LONGEST_S, PARTS, SMALL, Part, Words
from hyvideo_rt.bench.gpu_suite import MINUTES, planned, run_all
from hyvideo_rt.bench.markdown import ROOT, load_steps
from hyvideo_rt.bench.networks import Networks
from hyvideo_rt.bench.readme import suite_tables
from hyvideo_rt.bench.steps import chosen, ladder
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import MODELS
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.vae import CausalVAE

PARSE = argparse.ArgumentParser.parse_args


class ParsedError(Exception):
    """Instead of the run: what the module's own parser made of its flags."""


def parsed(command: Words, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    def parse(parser: argparse.ArgumentParser) -> None:
        parser.allow_abbrev = False
        raise ParsedError(PARSE(parser))

    module, *flags = command
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", [module, *(flag.format(attention="fa3") for flag in flags)])
    with pytest.raises(ParsedError) as stop:
        importlib.import_module(module).main()
    found = stop.value.args[0]
    assert isinstance(found, argparse.Namespace)
    return found


COMMANDS = [command for part in PARTS for command in (part.command, part.small) if command]
BENCHMARKS = [command for command in COMMANDS if command[0] != "pytest"]


@pytest.mark.parametrize("command", BENCHMARKS, ids=lambda command: " ".join(command[:6]))
def test_its_flags_are_the_modules(command: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error would cost minutes of a borrowed GPU."""
    assert parsed(command, monkeypatch).out == Path(command[command.index("--out") + 1])


def test_a_wrong_flag_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        parsed(("hyvideo_rt.bench.kernels", "--run", "3"), monkeypatch)


def test_every_test_of_a_gpu_is_in_one_part() -> None:
    """And no other: those of the server import what a machine for benchmarks need not have."""
    listed = [word for part in PARTS for word in part.command if word.startswith("tests/")]
    mark = re.compile(r"^(@|pytestmark = .*)pytest\.mark\.gpu\b", re.MULTILINE)
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if mark.search(path.read_text())]
    assert sorted(listed) == sorted(str(path.relative_to(ROOT)) for path in marked)


def test_all_of_it_fits_the_time() -> None:
    assert sum(part.expected_s for part in PARTS) <= 60 * MINUTES
    assert all(1.15 * part.expected_s <= part.limit_s <= LONGEST_S for part in PARTS)


def test_the_most_valuable_half_fits_half_an_hour() -> None:
    """Right results, a step and a decode at both sizes against diffusers, kernels, and what 8 bits do."""
    first = [part.name for i, part in enumerate(PARTS) if sum(p.expected_s for p in PARTS[: i + 1]) <= 1800]
    assert {"correctness of kernels", "step at 544x960x129", "step at 720x1280x129"} < set(first)
    assert {"kernels", "decode at 720x1280x129", "quality"} < set(first)


def test_results_have_the_names_that_tables_read() -> None:
    about = {"attention": "fa3", "commit": ""}
    plans = [planned(part, about, torch.device("cpu"), small=False) for part in PARTS]
    names = [plan.result for plan in plans if plan.result.endswith(".json")]
    steps = [
        name for name in names if re.fullmatch(r"steps-\d+x\d+x\d+(_more|_decode|_engines)?\.json", name)
    ]
    others = {"kernels.json", "quality.json", "request.json", "footprint.json", "engines.json"}
    assert set(names) - set(steps) == others
    assert len({plan.result for plan in plans}) == len(plans)


@pytest.mark.parametrize("part", [part for part in PARTS if "--rungs" in part.command], ids=lambda p: p.name)
def test_the_rungs_that_are_picked_are_in_the_ladder(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    config = MODELS["tiny"]
    with torch.device("meta"):
        dit, vae = HunyuanVideoDiT(config.dit), CausalVAE(config.vae)
    networks = Networks(config, dit, vae, torch.device("cuda"))
    flags = parsed(part.command, monkeypatch)
    monkeypatch.setattr(torch, "Generator", lambda device: torch.default_generator)  # there is no GPU here
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.empty(shape, device="meta"))
    (stage,) = flags.stages
    rungs = ladder(stage, networks, Bucket(64, 64, 17), "fa3", Path())
    assert [rung.name for rung in chosen(rungs, flags.rungs)] == flags.rungs
    assert flags.rungs[0] == "diffusers", "the ratios are to it"
    with pytest.raises(InvalidRequest, match="expected one of diffusers"):
        chosen(rungs, ["fa2 attention"])


def test_of_several_files_of_steps_the_first_row_that_was_timed_counts(tmp_path: Path) -> None:
    def put(name: str, *rows: dict[str, object]) -> None:
        about = {"stage": "denoise", "size": SMALL}
        result = {"conditions": {"command": name}, "rows": [about | row for row in rows]}
        (tmp_path / f"{name}.json").write_text(json.dumps(result))

    put("steps-544x960x129_more", {"rung": "diffusers", "median_s": 2}, {"rung": "xDiT", "median_s": 3})
    put("steps-544x960x129", {"rung": "diffusers", "median_s": 1}, {"rung": "xDiT", "reason": "cut"})
    merged = load_steps(str(tmp_path))
    assert merged["commands"] == ["steps-544x960x129", "steps-544x960x129_more"]
    assert [(row["rung"], row["median_s"]) for row in merged["rows"]] == [("diffusers", 1), ("xDiT", 3)]


def test_a_rehearsal_gives_results_that_are_drawn(tmp_path: Path) -> None:
    """Its steps and its request; the rest takes minutes: `bench gpu-suite --rehearse`."""
    names = ("step at 544x960x129", "whole video at 544x960x129")
    outcomes = run_all([part for part in PARTS if part.name in names], tmp_path, 600, "sdpa", small=True)
    assert [each.reason for each in outcomes] == ["", ""], logs(tmp_path, outcomes)
    rows = json.loads((tmp_path / "steps-64x64x17.json").read_text())["rows"]
    assert [(row["rung"], row["size"]) for row in rows] == [(name, "64x64x17") for name in FEW]
    command = [sys.executable, "-m", "hyvideo_rt.bench.plots", str(tmp_path), str(tmp_path / "gpu")]
    drawn = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    tables = suite_tables(str(tmp_path))
    assert all(f"| 64x64x17 | {name} |" in tables for name in FEW)
    assert {Path(path).name for path in drawn} == {
        f"gpu-{name}.png" for name in ("latency", "timeline", "waterfall")
    }


def logs(folder: Path, outcomes: list[Outcome]) -> str:
    return "\n".join((folder / each.result).with_suffix(".log").read_text()[-500:] for each in outcomes)
