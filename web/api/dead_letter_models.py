"""Requests and responses of the API about dead letters."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from schemas.dead_letter import DeadLetterLine
from web.api.models import ApiRequest, ApiResponse, Count, whole
from web.dead_letters import MAX_PARTITION
from web.dependencies import MAX_ID


class DeadLetter(DeadLetterLine, ApiResponse):
    """A dead letter: a message that could not be processed. A field whose header is missing is null."""


class WholeDeadLetter(DeadLetter):
    """A dead letter with its bytes and headers."""

    value: str | None = Field(description="The message's bytes in base64; null if it has none.")
    headers: dict[str, str | None]


class Place(ApiRequest):
    """The place of a dead letter in its topic."""

    partition: Annotated[int, Field(ge=0, le=MAX_PARTITION), BeforeValidator(whole)]
    offset: Annotated[int, Field(ge=0, le=MAX_ID), BeforeValidator(whole)]


class RedriveRequest(ApiRequest):
    """The dead letters to put on their source topic again."""

    letters: list[Place] = Field(min_length=1, max_length=100)
    again: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Whether to redrive also those that were redriven before, or discarded."
    )


class DiscardRequest(ApiRequest):
    """The dead letters to set aside for good."""

    letters: list[Place] = Field(min_length=1, max_length=100)


class Discarded(ApiResponse):
    """The result of a discard."""

    discarded: Count


class Redriven(ApiResponse):
    """The result of a redrive."""

    redriven: Count
    failed: list[str] = Field(description="Dead letters that Kafka did not accept, each with the error.")
