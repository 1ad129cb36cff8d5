"""A client that does not give up: what it asks is asked again until a server answers."""

import time
from typing import Any

import httpx

from hyvideo_rt.bench.stress_jobs import Content, Tale

PROMPT = "a red circle moves right"
GIVE_UP_S = 900
AGAIN_S = 0.1
LATER = (429, 503)  # answers that say: not now


class Client:
    """One connection, one thread. `retries` counts requests that were not answered."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30)
        self.retries = 0

    def ask(self, method: str, path: str, **words: Any) -> tuple[httpx.Response, bool]:
        """The answer, and whether the request may have been carried out before, its answer lost."""
        deadline, lost = time.monotonic() + GIVE_UP_S, False
        while time.monotonic() < deadline:
            try:
                answer = self.http.request(method, path, **words)
                if answer.status_code not in LATER:
                    return answer, lost
            except httpx.TransportError:
                lost = True
                self.retries += 1
            time.sleep(AGAIN_S)
        raise TimeoutError(f"{method} {path} was not answered in {GIVE_UP_S} s")

    def create(self, tale: Tale) -> None:
        """Under the tale's key; again is the same job, or the tale says otherwise."""
        answer, _ = self.ask("POST", "/v1/videos", json=tale.body, headers={"Idempotency-Key": tale.key})
        tale.ids.append(answer.raise_for_status().json()["id"])

    def has_ended(self, tale: Tale) -> bool:
        answer, _ = self.ask("GET", f"/v1/videos/{tale.id}")
        if answer.status_code == 404:
            tale.vanished = not tale.deleted
            return True
        return tale.saw(answer.raise_for_status().json())

    def wait_end(self, tale: Tale) -> None:
        deadline = time.monotonic() + GIVE_UP_S
        while not self.has_ended(tale) and time.monotonic() < deadline:
            time.sleep(AGAIN_S)

    def cancel(self, tale: Tale) -> None:
        tale.cancel_asked = True
        answer, _ = self.ask("POST", f"/v1/videos/{tale.id}/cancel")
        tale.went_on = not tale.saw(answer.raise_for_status().json())

    def delete(self, tale: Tale) -> None:
        answer, lost = self.ask("DELETE", f"/v1/videos/{tale.id}")
        if answer.status_code == 404 and not lost:
            tale.vanished = True
        tale.deleted = True
        tale.lingered = self.ask("GET", f"/v1/videos/{tale.id}")[0].status_code != 404

    def records(self) -> dict[str, dict[str, Any]]:
        """All that the server has, page by page."""
        found: dict[str, dict[str, Any]] = {}
        after: dict[str, str] = {}
        while True:
            page = (
                self.ask("GET", "/v1/videos", params={"limit": "100", **after})[0].raise_for_status().json()
            )
            found |= {record["id"]: record for record in page["data"]}
            if not page["has_more"]:
                return found
            after = {"after": page["last_id"]}

    def contents(self, records: dict[str, dict[str, Any]]) -> dict[str, Content]:
        """Of all that are completed."""
        return {
            job_id: Content.of(self.ask("GET", f"/v1/videos/{job_id}/content")[0].content)
            for job_id, record in records.items()
            if record["status"] == "completed"
        }

    def video_of(self, seed: int) -> str:
        """The hash of a video of this seed, made now and deleted."""
        tale = Tale(f"reference-{time.time_ns()}", {"prompt": PROMPT, "seed": seed, "steps": 4})
        self.create(tale)
        self.wait_end(tale)
        content = self.ask("GET", f"/v1/videos/{tale.id}/content")[0].raise_for_status().content
        self.delete(tale)
        return Content.of(content).sha256
