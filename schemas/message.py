"""The message on the topic: one per distinct member and batch, and how it is written and read.

The value holds ids and no content: what is mailed is looked up when it is mailed. The headers follow CloudEvents'
binary mode for Kafka, so that tools can route and trace without reading the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from schemas import limits
from schemas.vocabulary import Action, Role

CE_TYPE: Final = "org.bidden.invitation.due.v1"
CE_SOURCE: Final = "/bidden/producers"

_FIXED_HEADERS: Final[tuple[tuple[str, bytes], ...]] = (
    ("ce_specversion", b"1.0"),
    ("ce_type", CE_TYPE.encode()),
    ("ce_source", CE_SOURCE.encode()),
    ("content-type", b"application/json"),
)

_LONGEST_NAME: Final = 100

Id = Annotated[int, Field(ge=1, le=2**63 - 1, strict=True)]


# A dataclass is read in less than half the time of a model.
@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class InvitationDue:
    """A member of a batch is due an invitation in each of `roles`, those open when the batch was planned."""

    version: Literal[1]
    batch_id: Id
    event_id: Id
    member_id: Id
    action: Action
    roles: Annotated[tuple[Role, ...], Field(min_length=1, max_length=2)]


ADAPTER: Final = TypeAdapter(InvitationDue)


class UndecodableError(ValueError):
    """The message cannot be read or contradicts itself; its text is the reason on the dead letter."""


def key_of(member_id: int) -> bytes:
    """The message key: the member's id as decimal text."""
    return b"%d" % member_id


def encode(message: InvitationDue) -> bytes:
    """The value as bytes."""
    return ADAPTER.dump_json(message)


def encode_fast(batch_id: int, event_id: int, member_id: int, action: str, roles: Sequence[str]) -> bytes:
    """The bytes of `encode`, without validation: values come from the database, and the dispatcher's loop is hot."""
    names = '","'.join(roles)
    return (
        f'{{"version":1,"batch_id":{batch_id},"event_id":{event_id},"member_id":{member_id},'
        f'"action":"{action}","roles":["{names}"]}}'
    ).encode()


def decode(key: bytes | None, value: bytes | None) -> InvitationDue:
    """The message, or UndecodableError with a reason that names what is wrong."""
    if value is None:
        raise UndecodableError("empty value")
    if len(value) > limits.MESSAGE:
        # Before it is parsed: the limit bounds its nesting and the work of saying what is wrong, too.
        raise UndecodableError(f"value: {len(value):,} bytes, and the JSON of a message has at most {limits.MESSAGE:,}")
    try:
        message = ADAPTER.validate_json(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # An unknown field's name can be of any length: it must not outgrow the message that it explains.
        where = ".".join(str(part)[:_LONGEST_NAME] for part in first["loc"]) or "value"
        what = "unknown field" if first["type"] == "unexpected_keyword_argument" else first["msg"]
        raise UndecodableError(f"{where}: {what}") from None
    if key != key_of(message.member_id):
        raise UndecodableError(f"key does not name member_id {message.member_id}")
    return message


def cloud_event_id(shuffle_seed: int, member_id: int) -> str:
    """The CloudEvents id: of the item and not of the message, so that one that comes again is the same event.

    By the batch's seed and not its number, which comes again after the restore of a backup.
    """
    return f"{shuffle_seed:016x}{member_id:016x}"


def headers(ce_id: str, member_id: int, at: str, traceparent: str) -> list[tuple[str, str | bytes | None]]:
    """CloudEvents attributes in Kafka's binary mode, and the W3C trace context. `at` is ISO 8601 in UTC."""
    return [
        *_FIXED_HEADERS,
        ("ce_id", ce_id.encode()),
        ("ce_time", at.encode()),
        ("ce_subject", key_of(member_id)),
        ("traceparent", traceparent.encode()),
    ]
