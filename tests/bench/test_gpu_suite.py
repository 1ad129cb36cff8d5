"""The suite keeps what it has, whatever happens to it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hyvideo_rt.bench import gpu_suite
from hyvideo_rt.bench.gpu_outcomes import Outcome, said, sources
from hyvideo_rt.bench.gpu_parts import Part
from hyvideo_rt.bench.gpu_suite import run_all

DIE = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
SLOW = """
import json, pathlib, sys, time
rows = pathlib.Path(sys.argv[3]).read_text()
if rows: pathlib.Path(sys.argv[2]).write_text(json.dumps({"rows": [1] * int(rows)}))
time.sleep(600)
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parts are modules: `good` writes its result and counts its calls, `slow` writes rows and never ends."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "good.py").write_text(
        "import sys; open(sys.argv[2], 'w').write('{\"n\": 1}'); open(sys.argv[3], 'a').write('x')"
    )
    (folder / "bad.py").write_text("print('rows'); raise SystemExit('no GPU memory')")
    (folder / "dies.py").write_text(DIE)
    (folder / "slow.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return folder


def part(name: str, *flags: str, expected_s: int = 0) -> Part:
    """Its limit is half a minute and twice what is expected."""
    command = (name, "--out", f"{name}.json", *flags)
    return Part(name, expected_s, command, (*command, "--small"))


def run(
    parts: list[Part], out: Path, seconds: float = 60, attention: str = "fa3", small: bool = False
) -> dict[str, str]:
    """States in the order of the runs."""
    outcomes = run_all(parts, out, seconds, attention, small=small, say=lambda line: None)
    return {outcome.part: outcome.state for outcome in outcomes}


def known(out: Path) -> dict[str, dict[str, object]]:
    return {each["part"]: each for each in json.loads((out / "suite.json").read_text())["parts"]}


def test_each_part_has_its_own_end(modules: Path, tmp_path: Path) -> None:
    out, rows = tmp_path / "out", tmp_path / "rows"
    rows.write_text("3")
    said: list[str] = []
    parts = [part("bad"), part("dies"), part("slow", str(rows)), part("good", str(tmp_path / "calls"))]
    run_all(parts[:2], out, 60, "fa3", small=False, say=said.append)
    run_all(parts[2:3], out, 4, "fa3", small=False, say=said.append)
    run_all(parts[3:], out, 60, "fa3", small=False, say=said.append)
    assert [line.split()[0] for line in said] == ["failed", "failed", "cut", "passed"]
    found = known(out)
    assert {name: each["reason"] for name, each in found.items()} == {
        "bad": "no GPU memory",
        "dies": "ended by SIGSEGV",
        "slow": "after 4 s",
        "good": "",
    }
    assert "rows" in (out / "bad.log").read_text()
    assert said_rows(out) == 3
    assert found["good"]["command"] == f"python -m good --out good.json {tmp_path / 'calls'}"
    assert json.loads((out / "suite.json").read_text())["conditions"]["attention"] == "fa3"


def said_rows(out: Path) -> int:
    return len(json.loads((out / "slow.json").read_text())["rows"])


def test_what_passed_is_kept_and_what_did_not_comes_last(modules: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "out", tmp_path / "calls"
    assert run([part("bad"), part("good", str(calls))], out) == {"bad": "failed", "good": "passed"}
    (modules / "bad.py").write_text("")
    more = [part("bad"), part("good", str(calls)), part("dies")]
    again = run(more, out)
    assert list(again.items()) == [("dies", "failed"), ("bad", "passed"), ("good", "passed")]
    assert calls.read_text() == "x", "what had passed ran again"


def test_parts_that_are_not_asked_for_are_remembered(modules: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "out", tmp_path / "calls"
    good, bad = part("good", str(calls)), part("bad")
    run([good, bad], out)
    run([bad], out)
    assert list(known(out)) == ["good", "bad"]
    run([good, bad], out)
    assert calls.read_text() == "x"


def test_a_suite_that_is_killed_forgets_nothing(modules: Path, tmp_path: Path) -> None:
    """In the middle of a part that is tried again: what follows had passed, and it had more rows before."""
    out, rows, calls = tmp_path / "out", tmp_path / "rows", tmp_path / "calls"
    rows.write_text("5")
    parts = [part("slow", str(rows)), part("good", str(calls))]
    assert run(parts[:1], out, 4) == {"slow": "cut"}
    assert run(parts[1:], out) == {"good": "passed"}
    rows.write_text("2")
    program = (
        "from pathlib import Path; from hyvideo_rt.bench.gpu_suite import main, run_all;"
        "from hyvideo_rt.bench.gpu_parts import Part;"
        f"run_all([Part(*each) for each in {[tuple(asdict(each).values()) for each in parts]!r}],"
        f"Path({str(out)!r}), 60, 'fa3', small=False)"
    )
    suite = subprocess.Popen([sys.executable, "-c", program])
    while not (out / "slow.json.before").exists() or not said(out / "slow.json"):
        assert suite.poll() is None
        time.sleep(0.02)
    suite.kill()
    suite.wait()
    end_of(known_process(rows))
    assert (known(out)["slow"]["state"], known(out)["good"]["state"]) == ("cut", "passed")
    rows.write_text("")
    assert run(parts, out, 2) == {"slow": "cut", "good": "passed"}
    assert said_rows(out) == 5, "the better of three tries"
    assert calls.read_text() == "x"
    assert not (out / "slow.json.before").exists()


def known_process(rows: Path) -> int:
    """Of the part that outlives its suite."""
    for folder in Path("/proc").glob("[0-9]*"):
        words = (folder / "cmdline").read_bytes().split(b"\0") if folder.exists() else []
        if b"slow" in words and str(rows).encode() in words:
            return int(folder.name)
    raise AssertionError("no such process")


def end_of(process: int) -> None:
    os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize("other", ["small", "attention", "sources", "device"])
def test_other_work_is_measured_anew(
    other: str, modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rehearsal is no measurement; neither is one of other code, another GPU or another attention."""
    out, calls = tmp_path / "out", tmp_path / "calls"
    chosen = part("good", str(calls), "--attention", "{attention}")
    assert run([chosen], out, small=other == "small") == {"good": "passed"}
    before = known(out)["good"]
    if other == "sources":
        monkeypatch.setattr(gpu_suite, "sources", lambda *folders: "edited")
    if other == "device":
        state = {"conditions": {}, "parts": [before | {"device": "NVIDIA A100"}]}
        (out / "suite.json").write_text(json.dumps(state))
    run([chosen], out, attention="cudnn" if other == "attention" else "fa3")
    assert calls.read_text() == "xx"


def test_an_edit_that_no_commit_has_is_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyvideo_rt.bench.gpu_outcomes.ROOT", tmp_path)
    for folder in ("kernels", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.py").write_text("1")
    code, with_tests = sources("kernels"), sources("kernels", "tests")
    (tmp_path / "tests" / "one.py").write_text("2")
    assert sources("kernels") == code
    assert sources("kernels", "tests") != with_tests
    (tmp_path / "kernels" / "one.py").write_text("2")
    assert sources("kernels") != code


def test_a_part_begins_only_if_it_can_end(modules: Path, tmp_path: Path) -> None:
    long, short = part("good", str(tmp_path / "calls"), expected_s=90), part("bad", expected_s=5)
    assert run([long, short], tmp_path / "out", 60) == {"good": "not started", "bad": "failed"}
    assert list(known(tmp_path / "out")) == ["bad"]


TESTS = {
    "passed": ("def test_one(): pass", "passed", ""),
    "failed": ("def test_one(): pass\ndef test_two(): assert 0", "failed", "1 failed, 1 passed"),
    "skipped": (
        "import pytest\npytestmark = pytest.mark.skip\ndef test_one(): pass",
        "failed",
        "no test ran",
    ),
    "died": (f"def test_one(): pass\ndef test_two():\n    {DIE}", "failed", "ended by SIGSEGV"),
}


@pytest.mark.parametrize(("source", "state", "reason"), TESTS.values(), ids=TESTS.keys())
def test_tests_that_did_not_run_have_not_passed(source: str, state: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(source)
    command = ("pytest", "-q", "--junitxml", "it.xml", str(tmp_path / "test_it.py"))
    (outcome,) = run_all([Part("it", 0, command, command)], tmp_path / "out", 60, "fa3", small=False)
    assert outcome.state == state
    assert reason in outcome.reason
    if reason.startswith("1 failed"):
        assert outcome.tests == {"passed": 1, "failed": 1, "skipped": 0}
        assert "1 passed, 1 failed" in str(outcome)


def test_a_suite_that_is_ended_ends_its_part(modules: Path, tmp_path: Path) -> None:
    out, rows = tmp_path / "out", tmp_path / "rows"
    rows.write_text("1")
    program = (
        "import sys; from hyvideo_rt.bench import gpu_suite; from hyvideo_rt.bench.gpu_parts import Part;"
        f"gpu_suite.PARTS = (Part(*{tuple(asdict(part('slow', str(rows))).values())!r}),);"
        f"sys.argv = ['', '--rehearse', '--out', {str(out)!r}]; gpu_suite.main()"
    )
    suite = subprocess.Popen([sys.executable, "-c", program])
    while not said(out / "slow.json"):
        assert suite.poll() is None
        time.sleep(0.02)
    suite.terminate()
    assert suite.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(AssertionError, match="no such process"):
        known_process(rows)
    assert known(out)["slow"]["state"] == "cut"


@pytest.mark.timeout(20)
def test_a_signal_in_the_middle_of_waiting_still_ends_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the taking of subprocess's lock and the block that gives it back."""
    waited: list[Any] = []

    def wait(process: Any, timeout: float) -> int:
        process._waitpid_lock.acquire()
        waited.append(process)
        raise SystemExit(143)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    with pytest.raises(SystemExit):
        gpu_suite._ended([sys.executable, "-c", "import time; time.sleep(600)"], 2, 60)
    assert not Path(f"/proc/{waited[0].pid}").exists()


def test_without_a_gpu_it_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hyvideo_rt.cli.main", "bench", "gpu-suite", "--out", str(tmp_path)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "--rehearse" in done.stderr


def test_an_outcome_reads_what_it_wrote() -> None:
    outcome = Outcome("kernels", "python -m k --out k.json", "ab", "cpu", "c", "cut", 1.5, "after 2 s")
    assert Outcome(**json.loads(json.dumps(asdict(outcome)))) == outcome
    assert outcome.result == "k.json"
