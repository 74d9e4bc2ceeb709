"""Exceptions as HTTP errors: the status and the sentence that pages and the API respond with, never a traceback."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import psycopg
import structlog
from confluent_kafka import KafkaException
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from config.driver_errors import public_message, translate_error
from db.connect import NOT_MIGRATED, OUTAGES
from schemas.errors import BiddenError, NotFoundError, RefusedError, UnreachableError
from schemas.text import sentence

log = structlog.get_logger()

RETRY_SECONDS: Final = 30
_UNAVAILABLE: Final = (*OUTAGES, *NOT_MIGRATED, KafkaException)
#: What `to_http_error` translates. Validation errors are worded differently on pages and by the API.
HANDLED: Final = (HTTPException, BiddenError, *_UNAVAILABLE, psycopg.DataError, Exception)


@dataclass(frozen=True, slots=True)
class HttpError:
    """`detail` is a sentence for a person; `field` names what it is about, where that has a name."""

    status: int
    detail: str
    field: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


NOTHING_HERE: Final = HttpError(404, "There is nothing at this address.")


def to_http_error(request: Request, error: Exception) -> HttpError:
    """The error to respond with. Logs the cause of an outage, which the response does not name."""
    if isinstance(error, HTTPException):
        return HttpError(error.status_code, sentence(str(error.detail)), headers=error.headers or {})
    if isinstance(error, BiddenError):
        status = status_of(error)
        return _unavailable(error.detail) if status == 503 else HttpError(status, sentence(error.detail), error.field)
    if isinstance(error, _UNAVAILABLE):
        route = getattr(request.scope.get("route"), "path", None)
        log.warning("request failed: a server is unavailable", path=route, cause=str(translate_error(error) or error))
        return _unavailable(public_message(error))
    if isinstance(error, psycopg.DataError):
        # PostgreSQL could not represent a value that passed validation.
        return HttpError(422, "A value is out of range.")
    return HttpError(500, "This is an error of the server, which has logged it. Try again later.")


def status_of(error: BiddenError) -> int:
    """The HTTP status for an error of ours."""
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, RefusedError):
        return 409
    return 503 if isinstance(error, UnreachableError) else 422


def _unavailable(detail: str) -> HttpError:
    return HttpError(503, sentence(detail), headers={"Retry-After": str(RETRY_SECONDS)})


def is_path_error(error: RequestValidationError) -> bool:
    """Whether the path holds something that is no id: there is nothing at such an address."""
    return any(problem["loc"][0] == "path" for problem in error.errors())
