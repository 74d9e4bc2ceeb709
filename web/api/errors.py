"""Errors of the API: problem details (RFC 9457), for every error wherever it is raised."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field

from schemas.errors import SettingsError, UnreachableError, printable
from web.errors import HANDLED, NOTHING_HERE, HttpError, is_path_error, to_http_error

MEDIA_TYPE: Final = "application/problem+json"
_MAX_LENGTH: Final = 300
_MAX_ERRORS: Final = 20


class InvalidValue(BaseModel):
    """A part of the request that is invalid."""

    where: str = Field(description="`path`, `query`, `header` or `body`, and the name in it.", examples=["query.after"])
    detail: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """Why a request failed: problem details, RFC 9457."""

    type: str = Field(description="`about:blank`: the status says what kind of problem it is.")
    title: str = Field(description="The name of the status.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, as a sentence for a person.")
    field: str | None = Field(default=None, description="What it is about, where that has a name.")
    errors: list[InvalidValue] | None = Field(default=None, description="With 422: every part that is invalid.")


def add_handlers(api: FastAPI) -> None:
    """Responds to errors of the API with problem details."""
    api.add_exception_handler(RequestValidationError, _invalid)
    for kind in HANDLED:
        api.add_exception_handler(kind, _error)


def _error(request: Request, error: Exception) -> Response:
    if isinstance(error, SettingsError):
        # A setting of the server is nothing that a client could correct.
        error = UnreachableError(error.detail)
    return _problem(to_http_error(request, error))


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if is_path_error(error):
        return _problem(NOTHING_HERE)
    if isinstance(error.body, bytes):
        content_type = request.headers.get("content-type", "nothing")[:100]
        return _problem(HttpError(415, f"The body must be application/json, and its Content-Type says {content_type}."))
    errors = [
        InvalidValue(
            where=printable(".".join(str(part) for part in invalid["loc"]))[:_MAX_LENGTH],
            detail=printable(str(invalid["msg"]))[:_MAX_LENGTH],
        )
        for invalid in error.errors()[:_MAX_ERRORS]
    ]
    return _problem(HttpError(422, f"These values are invalid: {', '.join(e.where for e in errors)}."), errors)


def _problem(error: HttpError, errors: list[InvalidValue] | None = None) -> Response:
    """The response. The detail is made printable: it may quote what the client sent."""
    body = Problem(
        type="about:blank",
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=printable(error.detail),
        field=error.field,
        errors=errors,
    )
    content = orjson.dumps(body.model_dump(exclude_none=True))
    return Response(content, status_code=error.status, headers=dict(error.headers), media_type=MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: the errors that any route may respond with, and these."""
    reference = {"$ref": "#/components/schemas/Problem"}
    headers: dict[int, dict[str, Any]] = {
        401: {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}}},
        503: {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}},
    }
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": reference}},
            **({"headers": headers[status]} if status in headers else {}),
        }
        for status in sorted({*_ALWAYS, *statuses})
    }


_ALWAYS: Final = (401, 403, 422, 503)
_MEANINGS: Final = {
    400: "The body is not valid JSON.",
    401: "No token, or one that is unknown or revoked.",
    403: "The client lacks the scope that this needs, or its account the role, or a chapter that it reaches.",
    404: "It does not exist, or is not in the chapters of the client's account.",
    408: "The body took too long to arrive.",
    409: "The action is refused; `detail` says why. Nothing was written.",
    413: "The body is too large.",
    415: "The body is not `application/json`.",
    422: "A parameter or the body is invalid; `errors` says which part and why.",
    503: "A server that this needs is unavailable. Nothing is lost: try again.",
}
