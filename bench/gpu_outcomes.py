"""What became of the parts of the GPU's suite, and the care for their results, of which none is lost."""

import hashlib
import itertools
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from hyvideo_rt.bench.markdown import ROOT

State = Literal["passed", "failed", "cut", "not started"]
CODE = ("bench", "engines", "export", "hyvideo_rt", "kernels", "tiny")  # not through the links to them
CODE_FILES = (".py", ".toml")
RESULT_FLAGS = ("--out", "--junitxml")


@dataclass(frozen=True)
class Outcome:
    """Of one part. sources is the digest of the code that ran, edits that are not committed included.

    tests are counts by outcome, of a part that is tests; reason says why it did not pass.
    """

    part: str
    command: str
    sources: str
    device: str
    commit: str
    state: State = "not started"
    seconds: float = 0
    reason: str = ""
    tests: Mapping[str, int] | None = None

    def same_work(self, other: "Outcome") -> bool:
        mine, others = ((o.part, o.command, o.sources, o.device) for o in (self, other))
        return mine == others

    @property
    def result(self) -> str:
        """The name of the file that the command writes."""
        return next(
            name for flag, name in itertools.pairwise(shlex.split(self.command)) if flag in RESULT_FLAGS
        )

    def __str__(self) -> str:
        tests = ", ".join(f"{count} {name}" for name, count in (self.tests or {}).items() if count)
        words = [f"{self.state:11} {self.seconds:6.0f} s", self.part, tests, self.reason]
        return "  ".join(word for word in words if word)


def counts(path: Path) -> dict[str, int]:
    """Of JUnit's XML."""
    (suite,) = ElementTree.parse(path).getroot()
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    skipped = int(suite.attrib["skipped"])
    passed = int(suite.attrib["tests"]) - failed - skipped
    return {"passed": passed, "failed": failed, "skipped": skipped}


def set_aside(result: Path, *, again: bool) -> None:
    """What an earlier try of the same work wrote, while it is tried again; of other work nothing is kept."""
    settle(result, passed=not again)
    if again and result.exists():
        result.replace(_aside(result))
    result.unlink(missing_ok=True)


def settle(result: Path, *, passed: bool) -> None:
    """A try that was cut replaces the one before only if it says more."""
    aside = _aside(result)
    if not passed and said(aside) > said(result):
        aside.replace(result)
    aside.unlink(missing_ok=True)


def said(path: Path) -> int:
    """How many numbers a result holds; 0 for none or half of a file."""
    try:
        text = path.read_text()
        return 1 if ".xml" in path.suffixes else len(list(_numbers(json.loads(text))))
    except (OSError, ValueError):
        return 0


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield value


def _aside(result: Path) -> Path:
    return result.with_name(f"{result.name}.before")


def sources(*folders: str) -> str:
    """The digest of their Python and TOML files: of edits, too, that no commit has."""
    found = hashlib.sha256()
    for path in sorted(p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in CODE_FILES):
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def earlier(folder: Path) -> dict[str, Outcome]:
    """By part, what the folder's `suite.json` says."""
    path = folder / "suite.json"
    parts = json.loads(path.read_text())["parts"] if path.exists() else []
    return {each["part"]: Outcome(**each) for each in parts}


def write(folder: Path, about: Mapping[str, object], known: Mapping[str, Outcome]) -> None:
    """Whole or not at all: it may be killed at any moment."""
    state = {"conditions": about, "parts": [asdict(each) for each in known.values()]}
    partial = folder / "suite.json.partial"
    partial.write_text(json.dumps(state, indent=2) + "\n")
    partial.replace(folder / "suite.json")
