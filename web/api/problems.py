"""Errors of the API: problem details (RFC 9457), whatever went wrong and wherever."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import orjson
import psycopg
import structlog
from confluent_kafka import KafkaException
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from config.driver_errors import public_message, translate_error
from db.connect import NOT_MIGRATED, OUTAGES
from schemas.errors import BiddenError, NotFoundError, RefusedError, SettingsError, UnreachableError, printable
from schemas.text import sentence

log = structlog.get_logger()

MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 30
_LONGEST: Final = 300


class Mistake(BaseModel):
    """Something in the request that cannot be read."""

    where: str = Field(description="`path`, `query`, `header` or `body`, and the name in it.", examples=["query.after"])
    detail: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """Why a request was not answered as hoped: problem details, RFC 9457."""

    type: str = Field(description="`about:blank`: the status says what kind of problem it is.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, in a sentence for a person.")
    field: str | None = Field(default=None, description="What it is about, where that has a name.")
    errors: list[Mistake] | None = Field(default=None, description="With 422: every part that cannot be read.")


def problem(
    status: int,
    detail: str,
    *,
    field: str | None = None,
    errors: list[Mistake] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The response. What it quotes is made printable: it may be what anybody sent."""
    body = Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=printable(detail),
        field=field,
        errors=errors,
    )
    content = orjson.dumps(body.model_dump(exclude_none=True))
    return Response(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def add_handlers(api: FastAPI) -> None:
    """Every error of the API is answered by these."""
    api.add_exception_handler(HTTPException, _refused)
    api.add_exception_handler(RequestValidationError, _not_understood)
    api.add_exception_handler(BiddenError, _worded)
    for away in (*OUTAGES, *NOT_MIGRATED, KafkaException):
        api.add_exception_handler(away, _away)
    api.add_exception_handler(psycopg.DataError, _out_of_range)
    api.add_exception_handler(Exception, _failed)


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return problem(error.status_code, sentence(str(error.detail)), headers=headers)


def _not_understood(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(mistake["loc"][0] == "path" for mistake in found):
        return problem(404, "There is nothing at this address.")
    if isinstance(error.body, bytes):
        given = request.headers.get("content-type", "nothing")
        return problem(415, f"The body must be application/json, and its Content-Type says {given[:100]}.")
    errors = [
        Mistake(
            where=printable(".".join(str(part) for part in mistake["loc"]))[:_LONGEST],
            detail=printable(str(mistake["msg"]))[:_LONGEST],
        )
        for mistake in found[:20]
    ]
    return problem(422, f"This cannot be read: {', '.join(mistake.where for mistake in errors)}.", errors=errors)


def _worded(_: Request, error: Exception) -> Response:
    assert isinstance(error, BiddenError)
    detail = sentence(error.detail)
    if isinstance(error, NotFoundError):
        return problem(404, detail, field=error.field)
    if isinstance(error, RefusedError):
        return problem(409, detail, field=error.field)
    if isinstance(error, UnreachableError | SettingsError):
        return _unavailable(detail)
    return problem(422, detail, field=error.field)


def _away(request: Request, error: Exception) -> Response:
    known = translate_error(error)
    log.warning("a server did not answer a request of the API", path=_route(request), cause=str(known or error))
    return _unavailable(public_message(error))


def _unavailable(detail: str) -> Response:
    return problem(503, detail, headers={"Retry-After": str(RETRY_SECONDS)})


def _out_of_range(_: Request, __: Exception) -> Response:
    # PostgreSQL's own word that it could not hold a value.
    return problem(422, "This cannot be read: a value is out of range.")


def _failed(_: Request, __: Exception) -> Response:
    return problem(500, "This is a mistake of the server, and not yours.")


def _route(request: Request) -> str | None:
    path: str | None = getattr(request.scope.get("route"), "path", None)
    return path


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: the errors that any route may answer with, and these."""
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
    400: "The body cannot be read at all.",
    401: "No token, or one that is unknown or revoked.",
    403: "The client lacks the scope, or its account the role, that this needs.",
    404: "There is no such thing, or it is none that the client's account may know of.",
    408: "The body took too long to arrive.",
    409: "Understood, and must not be done; `detail` says why. Nothing was written.",
    413: "The body is larger than anything that could be meant.",
    415: "The body is not `application/json`.",
    422: "A parameter or the body cannot be read; `errors` says which and why.",
    503: "A server behind this one cannot be reached. Nothing is lost: try again.",
}
