"""Requests and responses of the API, but for dead letters. The OpenAPI document is generated from these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from producers.batch_control import Verdict
from schemas.vocabulary import Audience, BatchState, EventKind, Reason, Role, RolePolicy
from web.dependencies import MAX_ID

T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]
Status = Literal["sent", "failed", "unknown", "skipped", "pending"]


def whole(value: Any) -> Any:
    """A JSON number, where 1.0 is 1. Pydantic would also take a string or a boolean."""
    if isinstance(value, bool | str):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic reports a ValueError
    return value


class ApiResponse(BaseModel):
    """What the API answers, or a part of it."""

    model_config = ConfigDict(from_attributes=True)


class ApiRequest(BaseModel):
    """A body: a field that it does not know is refused."""

    model_config = ConfigDict(extra="forbid")


class Page(ApiResponse, Generic[T]):
    """A page of a list."""

    items: list[T]
    next: str | None = Field(description="The address of the next page; null on the last one.")


class Chapter(ApiResponse):
    """A chapter that holds an event."""

    id: int
    name: str


class Event(ApiResponse):
    """An event."""

    id: int
    kind: EventKind
    name: str
    starts_at: datetime
    ends_at: datetime
    time_zone: str = Field(description="The time zone of its chapter.", examples=["Europe/London"])
    cancelled_at: datetime | None
    invitable: bool = Field(description="Whether the directory marks it as invitable.")
    role_policy: RolePolicy = Field(description="Whether a member on both lists gets a mail for each role, or one.")
    chapters: list[Chapter]
    ref: str | None = Field(description="What the organisation calls it. Accepted wherever the id is.")
    audience: Audience | None = Field(description="The widest that may be invited to it; null: everyone.")
    why_not: str | None = Field(description="Why it cannot be invited to now; null if it can.")


class ListedEvent(Event):
    """An event, with a summary of its batches."""

    state: str = Field(description="The state that the site shows.", examples=["invited"])
    batches: Count = Field(description="How many batches were started.")
    last_batch_at: datetime | None = Field(description="When the last one was started.")


class DryRun(ApiResponse):
    """What a batch would do now. Nothing was written."""

    event_id: int
    audience: Audience
    planned: Count = Field(description="Members who would be invited.")
    deliveries: Count = Field(description="Mails that would be sent.")
    excluded: dict[str, int] = Field(description="Members who would be excluded, by reason.")


class Member(ApiResponse):
    """A member, as far as the client's account may see them."""

    member_id: int
    name: str | None = Field(description="Null for a deleted member.")
    email: str | None


class Candidate(Member):
    """A member behind a number of a dry run."""

    roles: list[Role] | None = Field(description="As what they would be invited; null: they have had all mails.")


class Candidates(Page[Candidate]):
    """The members behind a number of a dry run."""

    some_hidden: bool = Field(description="Other chapters hold the event, too. Their members are not listed.")


class BatchRequest(ApiRequest):
    """The audience to invite."""

    audience: Audience


class StartedBatch(ApiResponse):
    """A batch that was started."""

    batch_id: int | None = Field(description="Null, and no batch was started, if nobody is left to invite.")
    event_id: int
    audience: Audience
    planned: Count = Field(description="Members who are invited.")
    deliveries: Count = Field(description="Mails that are sent to them.")
    excluded: dict[str, int] = Field(description="Members who were excluded, by reason.")
    state: BatchState
    already_triggered: bool = Field(description="Whether the key was used before, and started this batch then.")
    planning: bool = Field(
        description="A large audience is planned in the background: until then the counts are 0. `GET /batches/{batch}`"
        " shows the progress."
    )


class ListedBatch(ApiResponse):
    """A batch in a list."""

    batch_id: int
    event_id: int
    event_name: str
    audience: Audience
    state: BatchState
    has_errors: bool = Field(description="Whether a delivery of it is unknown, or failed for good so far.")
    initiator: str = Field(description="Who started it.")
    started_at: datetime


class Batch(ApiResponse):
    """A batch in numbers. sent, failed, unknown, skipped and pending sum to deliveries."""

    batch_id: int
    event_id: int
    audience: Audience
    state: BatchState
    planned: Count = Field(description="Members who are invited.")
    deliveries: Count = Field(description="Mails that are sent to them.")
    sent: Count
    failed: Count
    unknown: Count = Field(description="The mail server may have accepted them; a person must resolve these.")
    skipped: Count
    pending: Count
    excluded: dict[str, int] = Field(description="Members who were excluded at planning, by reason.")
    planning: bool = Field(description="The batch is still being planned, and its counts are 0.")
    started_at: datetime
    completed_at: datetime | None = Field(description="When the last delivery was settled, or the batch cancelled.")
    error: str | None = Field(
        description="The first error, usually a reply of the mail server, which may quote an address. Null also if it "
        "is about a member whom the account may not see, or who is gone."
    )
    initiator: str


class Entry(Member):
    """The outcome of a delivery of a batch, or why the batch excluded a member."""

    role: Role | None = Field(description="Null for an excluded member.")
    status: Literal["sent", "failed", "unknown", "skipped", "pending", "left out"]
    reason: str | None
    attempts: Count
    at: datetime | None
    sent_by_batch: int | None = Field(description="The batch that sent the mail, if another one did.")
    reply: str | None = Field(description="The mail server's reply when it accepted the mail.")


class Entries(Page[Entry]):
    """A batch's log, by member."""

    some_hidden: bool = Field(description="Members of other chapters may be in it, too. They are not listed.")


class WebhookStatus(ApiResponse):
    """The status of a client's webhook for a batch: the notification of the batch's end."""

    batch_id: int
    state: Literal["waiting", "retrying", "delivered", "given up"] = Field(
        description="waiting: nothing was sent yet; retrying: an attempt failed, and there will be another."
    )
    attempts: Count
    due_at: datetime | None = Field(description="When the next attempt is due; before the end, when the batch started.")
    delivered_at: datetime | None
    last_error: str | None


class Retried(ApiResponse):
    """The result of a retry."""

    deliveries: Count = Field(description="How many failed deliveries are due again.")


class ResolveRequest(ApiRequest):
    """What became of unknown deliveries, decided by a person."""

    verdict: Verdict = Field(description="sent: they arrived; failed: they did not; resend: send them again.")
    member_id: Annotated[int, Field(ge=1, le=MAX_ID), BeforeValidator(whole)] | None = Field(
        default=None, description="Only deliveries to this member; without it, all of the event."
    )


class Resolved(ApiResponse):
    """The result of resolving."""

    resolved: Count = Field(description="Deliveries that were unknown.")
    without_batch: Count = Field(description="With resend: how many need a new batch to be sent.")


class SetAsideLine(ApiResponse):
    """A line of the directory's source that its newest snapshot could not use."""

    type: str
    key: str
    field: str | None
    problem: str


class Missing(Member):
    """An eligible member with neither an outcome nor a pending delivery."""

    role: Role


class Audit(ApiResponse):
    """Was every eligible member invited? Counts deliveries."""

    event_id: int
    audience: Audience
    eligible: Count
    sent: Count
    failed: Count
    unknown: Count
    skipped: Count
    pending: Count
    missing: Count
    missing_members: list[Missing] = Field(description="The missing members whom the account may see, at most 500.")
    missing_next: str | None = Field(description="Where the next of them are; null when these are the last.")
    balanced: bool = Field(description="Whether the numbers add up, and no log contradicts the ledger.")
    contradictions: dict[str, int] = Field(description="How often a log and the ledger disagree, by kind.")
    members_set_aside: Count = Field(
        default=0, description="Members whom the directory's source has, and could not use: not among the eligible."
    )
    set_aside: list[SetAsideLine] = Field(
        default=[], description="Lines about the event that it could not use, if the account may see all members."
    )


class Delivery(ApiResponse):
    """A mail to a member for an event."""

    role: Role
    status: Status
    reason: str | None
    batch_id: int | None
    at: datetime | None
    attempts: Count
    reply: str | None


class Why(ApiResponse):
    """Why a member got a mail for an event, or did not."""

    event_id: int
    member_id: int
    eligible: bool
    reasons: list[Reason] = Field(description="Every reason why no mail would be sent now.")
    deliveries: list[Delivery]
    set_aside: list[SetAsideLine] = Field(default=[], description="Lines about the member that could not be used.")
