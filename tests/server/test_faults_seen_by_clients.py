"""What a client reads of a video that failed, fault by fault; the next video is made."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from stubs import ended, stub_service, wait_warm

from hyvideo_rt.server.app import make_app
from hyvideo_rt.server.service import Service

FAULTS = {
    "crash": ("worker_lost", "the process that made this video ended", 2),
    "garble": ("worker_lost", "the process that made this video ended", 2),
    "hang": ("timeout", "no progress for too long", 2),
    "freeze": ("timeout", "no progress for too long", 2),
    "fail device_error": ("device_error", "as the prompt has it", 2),
    "fail internal_error": ("internal_error", "as the prompt has it", 2),
    "fail engine_error": ("engine_error", "as the prompt has it", 2),
    "fail out_of_memory": ("out_of_memory", "as the prompt has it", 1),
    "fail numerical_error": ("numerical_error", "as the prompt has it", 1),
    "fail disk_full": ("disk_full", "as the prompt has it", 1),
    "fail output_error": ("output_error", "as the prompt has it", 1),
    "fail does_not_fit": ("does_not_fit", "as the prompt has it", 1),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with stub_service(tmp_path_factory.mktemp("faults"), breaker_deaths=1000) as service:
        wait_warm(service)
        yield service


@pytest.mark.parametrize("prompt", FAULTS)
def test_a_fault_and_the_video_after_it(service: Service, prompt: str) -> None:
    client, (code, words, attempts) = (
        TestClient(make_app(service), base_url="http://127.0.0.1"),
        FAULTS[prompt],
    )
    video_id = client.post("/v1/videos", json={"prompt": prompt}).json()["id"]
    ended(service, video_id)
    video = client.get(f"/v1/videos/{video_id}").json()
    assert (video["status"], video["error"]["code"], video["attempts"]) == ("failed", code, attempts)
    assert words in video["error"]["message"]
    assert video["sha256"] is None
    content = client.get(f"/v1/videos/{video_id}/content")
    assert (content.status_code, content.json()["error"]["code"]) == (409, "video_failed")
    after = client.post("/v1/videos", json={"prompt": "a cat"})
    assert after.status_code == 200, after.text
    ended(service, after.json()["id"])
    assert client.get(f"/v1/videos/{after.json()['id']}/content").status_code == 200
