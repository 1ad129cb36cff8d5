"""Imports point down. The table is the design; a module that needs more moves, or the table changes."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hyvideo_rt"

_BASE = {"errors", "buckets", "config"}
_WEIGHTS = _BASE | {"kernels", "models", "weights"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "allocator": set(),
    "buckets": {"errors"},
    "kernels": set(),
    "config": {"buckets", "errors"},
    "models": {"config", "buckets", "kernels", "errors"},
    "sampling": {"buckets", "errors"},
    "video": {"buckets", "errors"},
    "weights": _WEIGHTS,
    "text": {"models", "config", "errors"},
    "attention": {"errors", "kernels"},
    "engines": {"buckets", "errors"},
    "export": {"config", "buckets", "errors", "kernels", "models", "engines"},
    "engine_set": {"config", "buckets", "models", "engines"},
    "pipeline": _WEIGHTS | {"allocator", "kernels", "sampling", "text", "video", "engine_set"},
    "calibration": _WEIGHTS | {"pipeline", "sampling"},
    "plan": {"pipeline", "models", "config", "buckets", "errors"},
    "doctor": {"buckets", "errors", "video", "engines", "attention"},
    "keys": set(),
    "ui": {"buckets", "errors", "keys"},
    "server": {"keys", "buckets", "config", "errors", "pipeline", "plan", "sampling", "video"},
    "cli": _WEIGHTS
    | {
        "server",
        "ui",
        "attention",
        "calibration",
        "pipeline",
        "plan",
        "doctor",
        "sampling",
        "video",
        "engine_set",
        "engines",
        "export",
    },
    "bench": {"*"},
}
LIBRARIES_OF_TESTS = {"diffusers", "transformers"}


def modules() -> list[Path]:
    links = [path for path in PACKAGE.iterdir() if path.is_symlink()]
    files = [file for folder in (PACKAGE, *links) for file in folder.rglob("*.py")]
    return sorted(file for file in files if "__pycache__" not in file.parts and file.name != "__init__.py")


def imports_of(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file: Path) -> None:
    subject = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = MAY_IMPORT[subject] | {subject}
    if "*" in allowed:
        return
    ours = {name.split(".")[1] for name in imports_of(file) if name.startswith("hyvideo_rt.")}
    assert ours <= allowed, f"{subject} may not import {sorted(ours - allowed)}"
    peers = {name.split(".")[0] for name in imports_of(file)} & LIBRARIES_OF_TESTS
    assert not peers, f"{sorted(peers)} are for tests and benchmarks"


def test_every_row_of_the_table_exists() -> None:
    subjects = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in modules()}
    assert subjects == set(MAY_IMPORT)


def test_linked_folders_have_no_init() -> None:
    for link in (path for path in PACKAGE.iterdir() if path.is_symlink()):
        assert link.resolve() == ROOT / link.name
        assert not (link / "__init__.py").exists()


def test_nothing_in_the_server_can_read_a_pickle() -> None:
    """What crosses a process border there is JSON."""
    forbidden = {"pickle", "marshal", "shelve", "dill", "multiprocessing", "torch.multiprocessing"}
    files = sorted((PACKAGE / "server").glob("*.py"))
    assert len(files) > 20
    for file in files:
        assert not imports_of(file) & forbidden, file
