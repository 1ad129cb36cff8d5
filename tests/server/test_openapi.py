"""The published schema against the application: whatever is sent, valid or not, the server does not fail."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance
from stubs import AUTH, KEY, QUICK, film, stub_settings, wait_for, wait_warm

from hyvideo_rt.server.app import make_app
from hyvideo_rt.server.service import Service

SOUGHT = os.environ.get(
    "SCHEMA_EXAMPLES"
)  # of each operation and mode: new ones are sought, else always the same
EXAMPLES = int(SOUGHT or "100")
CHAINS, CHAIN_LENGTH = EXAMPLES, 8
SETTINGS = settings(
    deadline=None, database=None, derandomize=SOUGHT is None, suppress_health_check=list(HealthCheck)
)
CHECKS = [not_a_server_error, response_schema_conformance]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    limits = replace(QUICK, watchdog_floor_s=5, heartbeat_s=5)
    folder = tmp_path_factory.mktemp("openapi")
    service = Service(stub_settings(folder, "deaf", f"film={film(folder)}", keys=(KEY,), limits=limits))
    wait_warm(service)
    yield schemathesis.openapi.from_asgi("/openapi.json", make_app(service), headers=AUTH)
    service.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_breaks_the_server(schema: Any, mode: GenerationMode) -> None:
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 14
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.headers):
            continue  # nothing to get wrong but the id in the path
        _try(operation, mode)


def test_no_chain_of_requests_breaks_the_server(schema: Any) -> None:
    """Ids of videos go into whatever takes one: they are followed, listed, downloaded, cancelled, deleted."""
    operations = [result.ok() for result in schema.get_all_operations()]
    chained = [operation for operation in operations if operation.path.startswith("/v1/videos")]
    calls: Counter[str] = Counter()

    @settings(SETTINGS, max_examples=CHAINS)
    @given(data=st.data())
    def one(data: st.DataObject) -> None:
        ids: list[str] = []
        for _ in range(CHAIN_LENGTH):
            operation = data.draw(st.sampled_from(chained))
            case, at = data.draw(operation.as_strategy()), data.draw(st.integers(0, CHAIN_LENGTH))
            if "video_id" in (case.path_parameters or {}):
                ids = ids or [_finished(schema)]
                case.path_parameters["video_id"] = ids[at % len(ids)]
            answer = case.call(headers=AUTH)
            case.validate_response(answer, checks=CHECKS)
            calls[operation.label] += answer.status_code < 300
            if operation.label == "POST /v1/videos" and answer.status_code == 200:
                ids.append(json.loads(answer.content)["id"])

    one()
    assert len(calls) >= 8
    assert min(calls.values()) >= CHAINS / 50, (
        calls
    )  # fewest are of the file, which needs a video that is done


def _finished(schema: Any) -> str:
    """The id of a video whose file is there."""
    operation = schema["/v1/videos"]["POST"]
    created = operation.Case(body={"prompt": "a cat"}, media_type="application/json").call(headers=AUTH)
    assert created.status_code == 200, created.content
    video_id = str(json.loads(created.content)["id"])
    retrieve = schema["/v1/videos/{video_id}"]["GET"].Case(path_parameters={"video_id": video_id})
    wait_for(lambda: json.loads(retrieve.call(headers=AUTH).content)["status"] == "completed")
    return video_id


def _try(operation: Any, mode: GenerationMode) -> None:
    @settings(SETTINGS, max_examples=EXAMPLES)
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        answer = case.call(headers=AUTH)
        assert answer.status_code != 401
        case.validate_response(answer, checks=CHECKS)
        if 400 <= answer.status_code < 500 and case.method != "HEAD":
            assert set(json.loads(answer.content)["error"]) == {"message", "type", "param", "code"}

    one()
