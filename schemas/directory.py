"""The lines of the directory file (JSON Lines): types and fields.

Every line is one object with a `type`. It is a whole record: an import unsets fields that are absent or null. The
validators' messages follow the field's name; `schemas.directory_file` reads files and adds the line. References
between records are checked in the database, not here.
"""

from __future__ import annotations

import re
from datetime import MAXYEAR, UTC, date, datetime, time, timedelta
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationInfo,
    field_validator,
)

from schemas import limits
from schemas.event_fields import MAX_ID as MAX_ID
from schemas.event_fields import check_ref, check_rsvp_url
from schemas.mail_address import address_problem, is_plain_address
from schemas.mailboxes import unseen_character
from schemas.time_zones import iana_time_zone
from schemas.vocabulary import Audience, EventKind, Role, RolePolicy

#: Identifies a record within its type.
Key: TypeAlias = tuple[int | str, ...]

_EMAIL: Final = re.compile(r"[^\s@<>\x00-\x1f\x7f-\x9f]+@[^\s@<>\x00-\x1f\x7f-\x9f]+")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,199}")
_TIME_SHAPE: Final = re.compile(r"[0-9W-]+[Tt ][0-9:.,]+([Zz]|[+-][0-9:.]+)?")
_MIDNIGHT_AT_THE_END: Final = re.compile(r"[Tt ]24(?=[:.,+Zz-]|0|$)")
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)


def _instant(value: object) -> datetime:
    """An ISO 8601 time with a zone, in UTC."""
    if not isinstance(value, str) or not _TIME_SHAPE.fullmatch(value):
        raise ValueError("must be an ISO 8601 time with a zone, such as 2026-04-09T18:30:00+01:00")
    if _MIDNIGHT_AT_THE_END.search(value):
        raise ValueError("must not say 24:00: write 00:00 of the next day")
    try:
        timestamp = datetime.fromisoformat(value.upper())
        if timestamp.tzinfo is not None:
            return timestamp.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is no time that exists") from None
    raise ValueError("must say its zone: end it with Z or an offset such as +01:00")


def _timestamp(value: object) -> datetime:
    timestamp = _instant(value)
    # A margin at both ends, so that it can be shown in any time zone.
    if not 1 < timestamp.year < MAXYEAR:
        raise ValueError("is too far away")
    return timestamp


def _end_of_ban(value: object) -> datetime | None:
    """The first time at which a ban no longer holds; a date counts until its end, UTC."""
    if value is None:
        return None
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        day = None
    if day is None:
        try:
            return _instant(value)
        except ValueError as error:
            raise ValueError(f"{error}; a date alone will do, too") from None
    # 9999-12-31 is how some systems write "for ever".
    return _END_OF_TIME if day == date.max else datetime.combine(day, time(), UTC) + timedelta(days=1)


def _email(value: str) -> str:
    if is_plain_address(value):
        return value
    if not _EMAIL.fullmatch(value):
        raise ValueError("must be an e-mail address: one @ with something on both sides, no spaces or <>")
    if unseen := unseen_character(value):
        raise ValueError(f"must be an e-mail address, and holds a character that cannot be seen ({unseen}): remove it")
    if len(value.encode(errors="replace")) > limits.EMAIL:
        raise ValueError(f"must not be longer than {limits.EMAIL} bytes")
    # What no mail can be addressed to would fail for every batch.
    if problem := address_problem(value):
        raise ValueError(f"must be an e-mail address: {problem.partition(': ')[2]}")
    return value


def _token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("must be 1 to 200 of the characters A-Z a-z 0-9 - . _ ~ and not begin with a dot")
    return value


def _distinct(value: list[int]) -> list[int]:
    if len(set(value)) != len(value):
        raise ValueError("must not name a chapter twice")
    return value


Id = Annotated[int, Field(strict=True, ge=1, le=MAX_ID)]
Name = Annotated[str, Field(min_length=1, max_length=limits.NAME)]
Email = Annotated[str, Field(max_length=limits.EMAIL), AfterValidator(_email)]
TimeZone = Annotated[str, AfterValidator(iana_time_zone)]
Token = Annotated[str, AfterValidator(_token)]
EventRef = Annotated[str, AfterValidator(check_ref)]
RsvpUrl = Annotated[str, AfterValidator(check_rsvp_url)]
Timestamp = Annotated[datetime, BeforeValidator(_timestamp)]
EndOfBan = Annotated[datetime | None, BeforeValidator(_end_of_ban)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _WithId(_Record):
    id: Id

    @property
    def key(self) -> Key:
        """The record's key within its type."""
        return (self.id,)


class Chapter(_WithId):
    """A city's chapter; its time zone is that of its events, unless they have their own."""

    type: Literal["chapter"]
    name: Name
    email: Email
    time_zone: TimeZone


class Group(_WithId):
    """A mailing list of a chapter. A chapter may have several of one name."""

    type: Literal["group"]
    chapter_id: Id
    name: Literal["Students", "Coaches"]
    deleted: StrictBool = False


class Member(_WithId):
    """A person. Names may hold any characters, line breaks too; an empty surname is none."""

    type: Literal["member"]
    name: Name
    surname: Annotated[str | None, Field(max_length=limits.NAME), AfterValidator(lambda value: value or None)] = None
    email: Email
    accepted_toc_at: Timestamp | None = None
    deleted: StrictBool = False


class Subscription(_Record):
    """A member on a list."""

    type: Literal["subscription"]
    member_id: Id
    group_id: Id
    deleted: StrictBool = False

    @property
    def key(self) -> Key:
        """The record's key within its type."""
        return (self.member_id, self.group_id)


class Ban(_WithId):
    """Permanent, or until a time (exclusive). One that is neither is refused: it would mean nothing."""

    type: Literal["ban"]
    member_id: Id
    permanent: StrictBool = False
    expires_at: EndOfBan = Field(default=None, validate_default=True)
    deleted: StrictBool = False

    @field_validator("expires_at", mode="after")
    @classmethod
    def _ends_or_is_permanent(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if value is None and not info.data.get("permanent", True):
            raise ValueError("is missing: a ban needs it, or permanent must be true")
        return value


class Host(_Record):
    """Where an event takes place."""

    name: Name
    address: Annotated[str, Field(min_length=1, max_length=limits.HOST_ADDRESS)]


class Event(_WithId):
    """Something that members are invited to, held by one chapter or several; the first one's time zone counts."""

    type: Literal["event"]
    kind: EventKind
    name: Name
    description: Annotated[str | None, Field(max_length=limits.DESCRIPTION)] = None
    chapter_ids: Annotated[
        list[Id], Field(min_length=1, max_length=limits.CHAPTERS, fail_fast=True), AfterValidator(_distinct)
    ]
    starts_at: Timestamp
    ends_at: Timestamp
    time_zone: TimeZone | None = None
    invitable: StrictBool
    host: Host | None = None
    #: Absent: an event keeps the one that it has, and a new one takes BIDDEN_ROLE_POLICY.
    role_policy: RolePolicy | None = None
    cancelled_at: Timestamp | None = None
    #: What the organisation calls it; accepted wherever the id is.
    ref: EventRef | None = None
    #: The widest audience that may be invited; absent: everyone.
    audience: Audience | None = None
    #: Where members answer; absent: the page of this installation.
    rsvp_url: RsvpUrl | None = None

    @field_validator("ends_at", mode="after")
    @classmethod
    def _ends_after_start(cls, value: datetime, info: ValidationInfo) -> datetime:
        if value < info.data.get("starts_at", value):
            raise ValueError("must not be before starts_at")
        return value


class Invitation(_Record):
    """Where a member answers. `sent_at`: another system has already mailed it."""

    type: Literal["invitation"]
    event_id: Id
    member_id: Id
    role: Role
    attending: StrictBool | None = None
    token: Token | None = None
    sent_at: Timestamp | None = None

    @property
    def key(self) -> Key:
        """The record's key within its type."""
        return (self.event_id, self.member_id, self.role.value)


class Deletion(_WithId):
    """Removes a group or ban, or anonymises a member."""

    type: Literal["group", "member", "ban"]


class SubscriptionDeletion(_Record):
    """Removes a member from a list."""

    type: Literal["subscription"]
    member_id: Id
    group_id: Id

    @property
    def key(self) -> Key:
        """The record's key within its type."""
        return (self.member_id, self.group_id)


Line: TypeAlias = Chapter | Group | Member | Subscription | Ban | Event | Invitation | Deletion | SubscriptionDeletion
#: By type.
LINE_MODELS: Final[dict[str, type[Line]]] = {
    "chapter": Chapter,
    "group": Group,
    "member": Member,
    "subscription": Subscription,
    "ban": Ban,
    "event": Event,
    "invitation": Invitation,
}
#: Of the types that accept `"deleted": true`; such a line needs only the keys.
DELETION_MODELS: Final[dict[str, type[Line]]] = {
    "group": Deletion,
    "member": Deletion,
    "subscription": SubscriptionDeletion,
    "ban": Deletion,
}
#: The types of line, in the order in which they refer to one another.
LINE_TYPES: Final = tuple(LINE_MODELS)
