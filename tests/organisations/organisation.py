"""Three organisations that say the same in different shapes: planner, a club, and a program that writes a file."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from config.settings import Settings
from db.snapshots import Snapshot
from db.source import Source
from db.sync import import_complete, sync_once
from schemas.source_file import parse

HERE: Final = Path(__file__).parent
PLANNER: Final = HERE.parents[1] / "sources" / "planner.sql"
#: For a database that keeps the lines of a directory file.
LINES_FILE: Final = HERE / "lines.sql"
#: The event of every organisation here: for Students, in 2096.
STARTS: Final = "2096-04-09T18:30:00+00:00"


class Organisation(ABC):
    """One list, one event (`event_id`), members by number, who have all accepted the terms."""

    event_id: int

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def close(self) -> None:  # noqa: B027 # a file needs nothing
        """Leave its database."""

    @abstractmethod
    def add(self, *members: int) -> None:
        """Members on the list."""

    @abstractmethod
    def leave(self, member: int) -> None:
        """They leave the list."""

    @abstractmethod
    def ban(self, member: int) -> None:
        """Until the end of 2095."""

    @abstractmethod
    def delete(self, *members: int) -> None:
        """There is no such member any more, and no subscription of theirs."""

    @abstractmethod
    def set_email(self, member: int, email: str) -> None:
        """Another address, or none."""

    @abstractmethod
    def answer(self, member: int, *, attending: bool) -> None:
        """They answered the organisation's own invitation."""

    @abstractmethod
    def sync(self, *, accept: bool = False) -> Snapshot:
        """A complete snapshot is taken."""


class OwnDatabase(Organisation):
    """One with a database that is read."""

    source_file: Path
    shape: str

    def __init__(self, settings: Settings, url: str) -> None:
        super().__init__(settings)
        self.url = url
        self.conn = psycopg.connect(url, autocommit=True)
        self.conn.execute((HERE / self.shape).read_bytes())

    def close(self) -> None:
        self.conn.close()

    def execute(self, statement: LiteralString, *values: Any) -> list[tuple[Any, ...]]:
        """In the organisation's own database."""
        cursor = self.conn.execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    @abstractmethod
    def invite(self, member: int, token: str) -> bool:
        """The organisation's own system invites: it mails whomever it makes a row for. Whether it did."""

    @abstractmethod
    def invited(self) -> dict[int, str]:
        """The token of each member who has a row."""

    def source(self, zone: str = "UTC") -> Source:
        """As the settings would say it; its owner writes back."""
        return Source(self.url, zone, parse(self.source_file.read_text(encoding="utf-8")), self.url)

    def sync(self, *, accept: bool = False) -> Snapshot:
        return sync_once(self._settings, self.source(), "test", accept=accept)


class Planner(OwnDatabase):
    """The shape of codebar's planner."""

    source_file = PLANNER
    shape = "planner_shape.sql"
    event_id = 4 * 1 + 1

    def __init__(self, settings: Settings, url: str) -> None:
        super().__init__(settings, url)
        self.execute("INSERT INTO chapters (name, email, time_zone) VALUES ('Berlin', 'b@example.org', 'Berlin')")
        self.execute("INSERT INTO groups (chapter_id, name) VALUES (1, 'Students')")
        self.execute("INSERT INTO sponsors (name) VALUES ('Host')")
        self.execute("INSERT INTO addresses (sponsor_id, street) VALUES (1, '1 Example Street')")
        self.execute("INSERT INTO workshops (chapter_id, date_and_time) VALUES (1, %s)", STARTS[:19])
        self.execute("INSERT INTO workshop_sponsors (workshop_id, sponsor_id, host) VALUES (1, 1, true)")

    def add(self, *members: int) -> None:
        self.execute(
            "INSERT INTO members (id, name, email, accepted_toc_at) SELECT n, 'M' || n, format('m%%s@example.org', n), "
            "'2020-01-01' FROM unnest(%s::int[]) n",
            list(members),
        )
        self.execute("INSERT INTO subscriptions (member_id, group_id) SELECT n, 1 FROM unnest(%s::int[]) n", [*members])

    def leave(self, member: int) -> None:
        self.execute("UPDATE subscriptions SET discarded_at = localtimestamp WHERE member_id = %s", member)

    def ban(self, member: int) -> None:
        self.execute("INSERT INTO bans (member_id, expires_at) VALUES (%s, '2096-01-01')", member)

    def delete(self, *members: int) -> None:
        self.execute("DELETE FROM subscriptions WHERE member_id = ANY(%s)", list(members))
        self.execute("DELETE FROM members WHERE id = ANY(%s)", list(members))

    def set_email(self, member: int, email: str) -> None:
        self.execute("UPDATE members SET email = %s WHERE id = %s", email, member)

    def answer(self, member: int, *, attending: bool) -> None:
        self.execute(
            "INSERT INTO workshop_invitations (workshop_id, member_id, role, token, attending, source, created_at) "
            "VALUES (1, %s, 'Student', %s, %s, 'admin', localtimestamp)",
            member,
            f"token-{member}",
            attending,
        )

    def invite(self, member: int, token: str) -> bool:
        return bool(
            self.execute(
                "INSERT INTO workshop_invitations (workshop_id, member_id, role, token, created_at) "
                "SELECT 1, %s, 'Student', %s, localtimestamp WHERE NOT EXISTS (SELECT FROM workshop_invitations i "
                "WHERE i.workshop_id = 1 AND i.member_id = %s) ON CONFLICT DO NOTHING RETURNING id",
                member,
                token,
                member,
            )
        )

    def invited(self) -> dict[int, str]:
        return dict(self.execute("SELECT member_id, token FROM workshop_invitations"))


class Club(OwnDatabase):
    """Tables that are nothing like planner's."""

    source_file = HERE / "club.sql"
    shape = "club_shape.sql"
    event_id = 1

    def __init__(self, settings: Settings, url: str) -> None:
        super().__init__(settings, url)
        self.execute("INSERT INTO club.gatherings VALUES (1, 'Gathering', %s, '1 Example Street')", STARTS)

    def add(self, *members: int) -> None:
        self.execute(
            "INSERT INTO club.people (no, given_name, mail) SELECT n, 'M' || n, format('m%%s@example.org', n) "
            "FROM unnest(%s::int[]) n",
            list(members),
        )

    def leave(self, member: int) -> None:
        self.execute("UPDATE club.people SET wants_mail = false WHERE no = %s", member)

    def ban(self, member: int) -> None:
        self.execute("UPDATE club.people SET barred_until = '2095-12-31' WHERE no = %s", member)

    def delete(self, *members: int) -> None:
        self.execute("UPDATE club.people SET left_on = '2026-01-01' WHERE no = ANY(%s)", list(members))

    def set_email(self, member: int, email: str) -> None:
        self.execute("UPDATE club.people SET mail = %s WHERE no = %s", email, member)

    def answer(self, member: int, *, attending: bool) -> None:
        self.execute("INSERT INTO club.answers VALUES (1, %s, %s)", member, attending)

    def invite(self, member: int, token: str) -> bool:
        return bool(
            self.execute(
                "INSERT INTO club.passes (gathering, person, pass, issuer) VALUES (1, %s, md5(%s)::uuid, 'club') "
                "ON CONFLICT DO NOTHING RETURNING person",
                member,
                token,
            )
        )

    def invited(self) -> dict[int, str]:
        return dict(self.execute("SELECT person, pass::text FROM club.passes"))


class Exporter(Organisation):
    """A program that writes the whole directory, which is piped into `bidden import --complete`."""

    event_id = 1

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.lines: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._put("chapter", 1, name="Oslo", email="oslo@example.org", time_zone="Europe/Oslo")
        self._put("group", 1, chapter_id=1, name="Students")
        self._put(
            "event",
            1,
            kind="workshop",
            name="Workshop",
            chapter_ids=[1],
            starts_at=STARTS,
            ends_at="2096-04-09T21:00:00Z",
            invitable=True,
            host={"name": "Host", "address": "1 Example Street"},
        )

    def _put(self, line_type: str, number: int, **fields: Any) -> None:
        self.lines[line_type, number] = {"type": line_type, "id": number} | fields

    def add(self, *members: int) -> None:
        for n in members:
            self._put("member", n, name=f"M{n}", email=f"m{n}@example.org", accepted_toc_at="2020-01-01T00:00:00Z")
            self.lines["subscription", n] = {"type": "subscription", "member_id": n, "group_id": 1}

    def leave(self, member: int) -> None:
        del self.lines["subscription", member]

    def ban(self, member: int) -> None:
        self._put("ban", member, member_id=member, expires_at="2095-12-31")

    def delete(self, *members: int) -> None:
        for member in members:
            del self.lines["member", member]
            self.lines.pop(("subscription", member), None)

    def set_email(self, member: int, email: str) -> None:
        self.lines["member", member]["email"] = email

    def answer(self, member: int, *, attending: bool) -> None:
        self.lines["invitation", member] = {
            "type": "invitation",
            "event_id": 1,
            "member_id": member,
            "role": "Student",
            "attending": attending,
        }

    def sync(self, *, accept: bool = False) -> Snapshot:
        content = "\n".join(json.dumps(line) for line in self.lines.values()).encode()
        return import_complete(self._settings, io.BytesIO(content), "test", "-", accept=accept)
