"""What the API answers: every field with what it means. The OpenAPI document is made of these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from producers.batch_control import Verdict
from schemas.vocabulary import Audience, BatchState, EventKind, Reason, Role, RolePolicy

T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]
Status = Literal["sent", "failed", "unknown", "skipped", "pending"]
_LARGEST = 2**63 - 1


def _whole(value: Any) -> Any:
    """A number of JSON, where 1.0 is 1; neither a text nor a truth value, which pydantic would take."""
    if isinstance(value, bool | str):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic words ValueError
    return value


class _Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Page(_Answer, Generic[T]):
    """Some of what there is."""

    items: list[T]
    next: str | None = Field(description="The address of the next page, to be called as it is; null on the last one.")


class Chapter(_Answer):
    """A chapter that holds an event."""

    id: int
    name: str


class Event(_Answer):
    """An event."""

    id: int
    kind: EventKind
    name: str
    starts_at: datetime
    ends_at: datetime
    time_zone: str = Field(description="Where its times are at home.", examples=["Europe/London"])
    cancelled_at: datetime | None
    invitable: bool = Field(description="Whether it is marked as one that may be invited to.")
    role_policy: RolePolicy = Field(description="Whether who is on both lists gets a mail for each role, or one.")
    chapters: list[Chapter]
    why_not: str | None = Field(description="Why nobody may be invited to it now; null when nothing is against it.")


class ListedEvent(Event):
    """An event, and what became of it so far."""

    state: str = Field(description="Where it stands, in a word or two.", examples=["invited"])
    batches: Count = Field(description="How many batches were started.")
    last_batch_at: datetime | None = Field(description="When the last one was.")


class DryRun(_Answer):
    """What a batch would come to now. Nothing was written."""

    event_id: int
    audience: Audience
    planned: Count = Field(description="Members who would be invited.")
    deliveries: Count = Field(description="Mails that they would get.")
    excluded: dict[str, int] = Field(description="Members who would be left out, by reason.")


class Person(_Answer):
    """A member, as far as the caller may know of her."""

    member_id: int
    name: str | None = Field(description="Null for a member who was deleted.")
    email: str | None


class Candidate(Person):
    """Somebody behind a number of a dry run."""

    roles: list[Role] | None = Field(description="What she would be invited as; null if she has had all her mails.")


class People(Page[Candidate]):
    """Who is behind a number of a dry run."""

    some_hidden: bool = Field(description="The event is held by other chapters too: their members are not named.")


class BatchRequest(_Request):
    """Whom to invite."""

    audience: Audience


class StartedBatch(_Answer):
    """What a trigger came to."""

    batch_id: int
    event_id: int
    audience: Audience
    planned: Count = Field(description="Members who are invited.")
    deliveries: Count = Field(description="Mails that they get.")
    excluded: dict[str, int] = Field(description="Members left out, by reason.")
    state: BatchState
    already_triggered: bool = Field(description="The key was used before: this is the batch that it started then.")


class ListedBatch(_Answer):
    """A batch in short."""

    batch_id: int
    event_id: int
    event_name: str
    audience: Audience
    state: BatchState
    initiator: str = Field(description="Who started it.")
    started_at: datetime


class Batch(_Answer):
    """A batch in numbers. sent, failed, unknown, skipped and pending sum to deliveries."""

    batch_id: int
    event_id: int
    audience: Audience
    state: BatchState
    planned: Count = Field(description="Members who are invited.")
    deliveries: Count = Field(description="Mails that they get.")
    sent: Count
    failed: Count
    unknown: Count = Field(description="The mail server may have taken them; a person resolves that.")
    skipped: Count
    pending: Count
    excluded: dict[str, int] = Field(description="Members left out at planning, by reason.")
    started_at: datetime
    completed_at: datetime | None = Field(description="When the last delivery was settled, or the batch cancelled.")
    error: str | None = Field(
        description="The first error, in the mail server's words. Null, too, where it is about somebody whom the "
        "account may not know of, or about nobody any more: it may name her."
    )
    initiator: str


class Entry(Person):
    """What became of a delivery of a batch, or why a member was left out of it."""

    role: Role | None = Field(description="Null for who was left out.")
    status: Literal["sent", "failed", "unknown", "skipped", "pending", "left out"]
    reason: str | None
    attempts: Count
    at: datetime | None
    sent_by_batch: int | None = Field(description="The batch that sent it, where another one had done so before.")
    reply: str | None = Field(description="What the mail server said when it took the mail.")


class Entries(Page[Entry]):
    """A batch's log, by member."""

    some_hidden: bool = Field(description="Members of other chapters may be in it, too: they are not named.")


class Telling(_Answer):
    """How far a client's webhook has been told of a batch's end."""

    batch_id: int
    state: Literal["waiting", "retrying", "delivered", "given up"] = Field(
        description="waiting: nothing was sent yet; retrying: it did not arrive, and is sent again."
    )
    attempts: Count
    due_at: datetime | None = Field(description="When it is sent again; while the batch runs, when it was started.")
    delivered_at: datetime | None
    last_error: str | None


class Retried(_Answer):
    """What a retry came to."""

    deliveries: Count = Field(description="How many failed deliveries are due again.")


class ResolveRequest(_Request):
    """A person's word about deliveries in doubt."""

    verdict: Verdict = Field(description="sent: they arrived; failed: they did not; resend: hand them over again.")
    member_id: Annotated[int, Field(ge=1, le=_LARGEST), BeforeValidator(_whole)] | None = Field(
        default=None, description="Only what is unknown of this member; without it, all of the event."
    )


class Resolved(_Answer):
    """What resolving came to."""

    resolved: Count = Field(description="Deliveries that were unknown.")
    without_batch: Count = Field(description="Of those to be sent again, how many wait for a new batch.")


class Missing(Person):
    """Somebody eligible for whom there is no outcome and no work under way."""

    role: Role


class Audit(_Answer):
    """Was everyone who is eligible invited? Counts deliveries."""

    event_id: int
    audience: Audience
    eligible: Count
    sent: Count
    failed: Count
    unknown: Count
    skipped: Count
    pending: Count
    missing: Count
    missing_members: list[Missing] = Field(description="The missing by name, at most 500, as far as they may be named.")
    balanced: bool = Field(description="The numbers sum up, and no log contradicts the ledger.")
    contradictions: dict[str, int] = Field(description="Where a log and the ledger say different things.")


class Delivery(_Answer):
    """A mail to a member for an event."""

    role: Role
    status: Status
    reason: str | None
    batch_id: int | None
    at: datetime | None
    attempts: Count
    reply: str | None


class Why(_Answer):
    """Why a member got a mail for an event, or did not."""

    event_id: int
    member_id: int
    eligible: bool
    reasons: list[Reason] = Field(description="All that stands against a mail now.")
    deliveries: list[Delivery]


class Letter(_Answer):
    """A dead letter: a message that could never be processed. What its headers do not say is null."""

    partition: int
    offset: int
    reason: str | None
    source_topic: str | None
    source_partition: int | None
    source_offset: int | None
    at: str | None
    key: str | None
    redriven_at: datetime | None


class WholeLetter(Letter):
    """A dead letter with its bytes."""

    value: str | None = Field(description="The message's bytes, as base64.")
    headers: dict[str, str | None]


class Place(_Request):
    """Where a letter lies."""

    partition: Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(_whole)]
    offset: Annotated[int, Field(ge=0, le=_LARGEST), BeforeValidator(_whole)]


class RedriveRequest(_Request):
    """Which letters to put on their source topic again."""

    letters: list[Place] = Field(min_length=1, max_length=100)
    again: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Those that were redriven before, too."
    )


class Redriven(_Answer):
    """What a redrive came to."""

    redriven: Count
    failed: list[str] = Field(description="Letters that the broker did not take, each with why.")
