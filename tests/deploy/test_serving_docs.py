"""docs/serving.md against the server: its routes, its error codes, its flags."""

import ast
import re
import shlex
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from hyvideo_rt.cli.main import build_parser
from hyvideo_rt.cli.serve_flags import LIMITS
from hyvideo_rt.server.app import make_app
from hyvideo_rt.server.database import FAILURES
from hyvideo_rt.server.desk import WORTH_ANOTHER
from hyvideo_rt.server.jobs import State
from hyvideo_rt.server.metrics import Metrics
from hyvideo_rt.server.settings import Limits
from hyvideo_rt.server.wire import CreateVideo, Video
from hyvideo_rt.server.worker import FATAL, OURS

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs/serving.md").read_text()


def section(title: str) -> str:
    return re.split(r"^#+ ", DOCS.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the tables of a section whose first one is code."""
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def routes() -> set[tuple[str, str]]:
    """Every method and path of the application, in its schema or not."""
    service: Any = SimpleNamespace(
        desk=None, settings=SimpleNamespace(limits=Limits(), api_keys=()), metrics=Metrics()
    )
    found, todo = set(), list[Any](make_app(service).routes)
    while todo:
        route = todo.pop()
        if isinstance(route, APIRoute | Route):
            methods = set(route.methods or ())
            found |= {(m, route.path) for m in methods - ({"HEAD"} if "GET" in methods else set())}
        else:
            todo += route.original_router.routes
    return found


def test_every_route_is_in_the_table_and_every_row_is_a_route() -> None:
    documented = re.findall(r"^\| `(GET|HEAD|POST|DELETE|PUT|PATCH) (/\S*)`", DOCS, re.MULTILINE)
    actual = {(method, path.replace(":path", "")) for method, path in routes()}
    assert len(documented) == len(set(documented))
    assert set(documented) == actual


def test_paths_in_the_text_exist() -> None:
    paths = {path.replace(":path", "") for _, path in routes()}
    for method, path in re.findall(r"`(?:(GET|POST|DELETE|HEAD) )?(/[a-z0-9/{}_]+)`", DOCS):
        if path not in ("/tmp", "/ui") and not path.startswith(("/srv/", "/etc/", "/var/")):
            assert path in paths, path
            assert not method or (method, path) in {(m, p.replace(":path", "")) for m, p in routes()}


def words_of_the_server() -> set[str]:
    """Every string literal that could be an error code, and those that are put together."""
    found = {phrase.phrase.lower().replace(" ", "_") for phrase in HTTPStatus}
    found |= {f"video_{state}" for state in State} | {"video_not_found", "model_not_found"}
    for file in (ROOT / "hyvideo_rt/server").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_error_codes_of_the_docs_exist() -> None:
    codes = {
        code
        for line in re.findall(r"\b[45]\d\d (?:`\w+`(?:, )?)+", DOCS)
        for code in re.findall(r"`(\w+)`", line)
    }
    assert {"queue_full", "draining", "video_not_found", "video_running"} <= codes
    assert codes <= words_of_the_server()


def codes_of_answers() -> set[str]:
    """The codes that are literals where an error is made: the third argument, or `code=` of bad_request."""
    found = set()
    for file in (ROOT / "hyvideo_rt/server").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in ("ApiError", "error_response", "bad_request") and len(node.args) > 2:
                code = node.args[2]
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    found.add(code.value)
    return found


def test_every_error_code_of_an_answer_is_documented() -> None:
    codes = codes_of_answers() | {code for code, _ in FAILURES.values()}
    assert {"queue_full", "timeout", "size_not_built", "range_not_satisfiable", "body_too_large"} <= codes
    assert [code for code in sorted(codes) if f"`{code}`" not in DOCS] == []


def test_every_way_to_fail_is_documented_with_its_attempts() -> None:
    table = [(re.findall(r"\w+", codes), again) for codes, _, again in rows("Jobs and their states")]
    documented = {code for codes, _ in table for code in codes}
    others = {"disk_full", "output_error", "out_of_memory"}
    assert documented == set(OURS.values()) | FATAL | WORTH_ANOTHER | others
    assert {code for codes, again in table for code in codes if again == "once"} == WORTH_ANOTHER
    assert Limits().attempts == 2, "once more"


def test_the_table_of_faults_names_codes_that_exist() -> None:
    table = section("What happens when").partition("\n\nA finished")[0]
    named = set(re.findall(r"`([a-z]+_[a-z_]+|timeout)`", table))
    failed = set(OURS.values()) | FATAL | WORTH_ANOTHER | {"disk_full", "output_error", "out_of_memory"}
    assert named <= failed | {code for code, _ in FAILURES.values()}
    assert {code for code, _ in FAILURES.values()} <= named


def test_every_field_is_documented() -> None:
    text = section("Endpoints")
    for name in CreateVideo.model_fields:
        assert f"`{name}`" in text, name
    states = section("Jobs and their states")
    for name in re.findall(r"`(\w+)`", states.partition("Beside OpenAI's fields")[2]):
        stages = {"load", "encode", "denoise", "decode", "write", "done", "total"}
        assert name in set(Video.model_fields) | stages, name
    for state in get_args(Video.model_fields["status"].annotation):
        assert f"`{state}`" in states


def flags_of(command: str) -> set[str]:
    subparsers: Any = build_parser()._subparsers
    return set(subparsers._group_actions[0].choices[command]._option_string_actions)


def test_flags_in_the_text_are_flags_of_serve() -> None:
    text = re.sub(r"^```.*?^```", "", DOCS, flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", text)
    named = {
        flag for span in spans if span.startswith("--") for flag in re.findall(r"--[a-z][a-z0-9-]*", span)
    }
    assert "--drain-timeout" in named
    assert named <= flags_of("serve")
    assert {f"--{name}" for name, *_ in LIMITS} <= named, "each is documented"


def commands() -> list[list[str]]:
    """Every `hyvideo-rt ...` of the docs and of our containers."""
    joined = DOCS.replace("\\\n", " ")
    return [
        shlex.split(line) for line in re.findall(r"(?:^|`)hyvideo-rt ([a-z][^`\n]*)", joined, re.MULTILINE)
    ]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_of_the_docs_parse(words: list[str]) -> None:
    if words[1:] or words[0] == "serve":
        build_parser().parse_args(words)
    else:
        assert flags_of(words[0])


def test_defaults_of_the_docs_are_those_of_serve() -> None:
    args = build_parser().parse_args(["serve"])
    for flags, default, _ in rows("Starting"):
        names = [name.strip("`-").replace("-", "_") for name in flags.split(", ")]
        for name, value in zip(names, default.split(", "), strict=True):
            actual = getattr(args, name)
            assert value == ("" if actual is None else f"{actual}") or name == "warm", name
