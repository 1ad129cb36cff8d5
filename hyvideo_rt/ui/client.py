"""Our HTTP API, typed. Safe to call from several threads."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import httpx

PAGE, MAX_PAGES = 50, 10  # videos asked for at once, and how often
TIMEOUT = httpx.Timeout(15, connect=3)
T = TypeVar("T")


@dataclass(eq=False)  # not frozen: an exception is given its traceback
class Refused(Exception):
    """What the API said instead of an answer; `unreachable` if it said nothing, then the status is 0."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None


@dataclass(frozen=True)
class Size:
    """A size that the model has a name for, and how it would run."""

    size: str  # WIDTHxHEIGHT
    num_frames: int
    built: bool
    warm: bool
    possible: bool
    estimated_seconds: float


@dataclass(frozen=True)
class Model:
    id: str
    sizes: tuple[Size, ...]
    default_size: str
    default_frames: int
    default_steps: int

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        default = content["default"]
        sizes = tuple(_read(Size, size) for size in content["sizes"])
        return cls(content["id"], sizes, default["size"], default["num_frames"], default["steps"])


@dataclass(frozen=True)
class Stage:
    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Fault:
    code: str
    message: str


@dataclass(frozen=True)
class Video:
    """As the API shows it; fields that a page has no use for are left out."""

    id: str
    status: str
    progress: int
    prompt: str
    size: str
    num_frames: int
    fps: int
    steps: int
    seed: int
    guidance_scale: float
    true_cfg_scale: float
    flow_shift: float
    negative_prompt: str
    created_at: int
    completed_at: int | None
    queue_position: int | None
    seconds_left: float | None
    stage_seconds: Mapping[str, float] | None
    size_bytes: int | None
    stage: Stage | None
    error: Fault | None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        stage, error = content["stage"], content["error"]
        return _read(
            cls,
            {
                **content,
                "stage": _read(Stage, stage) if stage else None,
                "error": _read(Fault, error) if error else None,
            },
        )

    @property
    def is_completed(self) -> bool:
        return self.status == "completed"

    @property
    def is_active(self) -> bool:
        return self.status in ("queued", "in_progress")


@dataclass(frozen=True)
class Wanted:
    """A video to ask for. Without a seed the server draws one."""

    prompt: str
    size: str
    num_frames: int
    steps: int
    seed: int | None
    guidance_scale: float
    true_cfg_scale: float
    flow_shift: float
    negative_prompt: str

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


class Client:
    """Every method raises Refused. `key` is sent as Bearer; redirects are not followed."""

    def __init__(self, server: str, key: str | None = None) -> None:
        self.server, self.headers = server, {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=server, headers=self.headers, timeout=TIMEOUT, trust_env=False)

    def model(self) -> Model:
        return Model.from_json(self._ask("GET", "/v1/models")["data"][0])

    def create(self, wanted: Wanted) -> Video:
        return Video.from_json(self._ask("POST", "/v1/videos", json=wanted.to_json()))

    def retrieve(self, video_id: str) -> Video:
        return Video.from_json(self._ask("GET", f"/v1/videos/{video_id}"))

    def cancel(self, video_id: str) -> Video:
        return Video.from_json(self._ask("POST", f"/v1/videos/{video_id}/cancel"))

    def delete(self, video_id: str) -> None:
        self._ask("DELETE", f"/v1/videos/{video_id}")

    def latest(self, completed: int) -> Sequence[Video]:
        """The newest first, of every status, until `completed` of them are; of the last 500 at most."""
        found: list[Video] = []
        for page in self._pages():
            found += page
            if sum(video.is_completed for video in found) >= completed:
                break
        return found

    def _pages(self) -> Iterator[list[Video]]:
        params: dict[str, str | int] = {"limit": PAGE}
        for _ in range(MAX_PAGES):
            answer = self._ask("GET", "/v1/videos", params=params)
            yield [Video.from_json(video) for video in answer["data"]]
            if not answer["has_more"]:
                return
            params["after"] = answer["last_id"]

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        try:
            answer = self._http.request(method, path, **content)
            if answer.is_success:
                return answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Refused(0, "unreachable", type(error).__name__) from error
        raise refusal(answer)


def refusal(answer: httpx.Response) -> Refused:
    """Of any answer that is not a success, ours or that of something on the way to the server."""
    error: Mapping[str, Any] = {}
    with contextlib.suppress(ValueError, KeyError, TypeError):
        error = dict(answer.json()["error"])
    after = answer.headers.get("retry-after", "")
    return Refused(
        answer.status_code,
        str(error.get("code") or f"http_{answer.status_code}"),
        str(error.get("message") or answer.reason_phrase),
        error.get("param"),
        int(after) if after.isdigit() else None,
    )


def _read(kind: type[T], content: Mapping[str, Any]) -> T:
    """A dataclass from the fields that it has; what else was sent is of a newer server."""
    return kind(**{field.name: content[field.name] for field in fields(kind)})  # type: ignore[arg-type]
