"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`, always."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from hyvideo_rt.server.database import DatabaseFailed

HUNG_UP = 499  # as nginx has it: the client did not wait for its answer


@dataclass(eq=False)  # not frozen: an exception is given its traceback
class ApiError(Exception):
    """What a request gets instead of an answer; `param` names the field that was wrong."""

    status: int
    message: str
    code: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> JSONResponse:
        return error_response(self.status, self.message, self.code, self.param, self.headers)


def error_response(
    status: int,
    message: str,
    code: str | None,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    return JSONResponse(error_body(status, message, code, param), status, headers)


def error_body(status: int, message: str, code: str | None, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": _kind(status), "param": param, "code": code}}


def bad_request(message: str, param: str | None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, code, param)


def not_found(what: str, name: str) -> ApiError:
    return ApiError(404, f"there is no {what} {name!r}", f"{what}_not_found", "id")


def install(app: FastAPI) -> None:
    """Every way in which a request can fail ends in one of our bodies; what nobody foresaw, in `Observe`."""

    @app.exception_handler(ApiError)
    async def _(request: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(DatabaseFailed)
    async def _(request: Request, error: DatabaseFailed) -> JSONResponse:
        return error_response(503, error.message, error.code, headers={"Retry-After": "30"})

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        return invalid(list(error.errors())).response()

    @app.exception_handler(ClientDisconnect)
    async def _(request: Request, error: ClientDisconnect) -> Response:
        """It hung up before its body was here; for the log and the metrics, nobody reads it."""
        return Response(status_code=HUNG_UP)

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return error_response(error.status_code, str(error.detail), code, headers=dict(error.headers or {}))


def invalid(errors: list[Any]) -> ApiError:
    """The first of pydantic's complaints, without what the client has sent."""
    first = errors[0]
    place = [str(part) for part in first["loc"] if part not in ("query", "path", "body", "header")]
    param = ".".join(place) or None
    code = "unknown_parameter" if first["type"] == "extra_forbidden" else "invalid_value"
    return bad_request(f"{param or 'the body'}: {first['msg']}", param, code)


def _kind(status: int) -> str:
    kinds = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        409: "conflict_error",
    }
    kinds[429] = "rate_limit_error"
    return kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
