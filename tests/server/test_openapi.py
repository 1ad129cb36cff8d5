"""The published schema against the application: whatever is sent, valid or not, the server does not fail."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance
from stubs import AUTH, KEY, QUICK, stub_settings, wait_warm

from hyvideo_rt.server.app import make_app
from hyvideo_rt.server.service import Service

EXAMPLES = 500  # of each operation and mode
CHECKS = [not_a_server_error, response_schema_conformance]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    limits = replace(QUICK, watchdog_floor_s=5, heartbeat_s=5)
    service = Service(stub_settings(tmp_path_factory.mktemp("openapi"), keys=(KEY,), limits=limits))
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


def _try(operation: Any, mode: GenerationMode) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        answer = case.call(headers=AUTH)
        assert answer.status_code != 401
        case.validate_response(answer, checks=CHECKS)
        if 400 <= answer.status_code < 500 and case.method != "HEAD":
            assert set(json.loads(answer.content)["error"]) == {"message", "type", "param", "code"}

    one()
