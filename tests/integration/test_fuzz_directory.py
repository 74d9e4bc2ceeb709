"""Directory files that were cut, garbled and made up: imported whole, or refused with the line and the field."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Final

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from db import import_staging
from db.connect import Connection
from tests.fuzzing import fingerprint, fuzz, run
from tests.integration.importing import BASE, CHAPTER, COACHES, EVENT, STUDENTS, invitation, load, member, subscription

#: A line of each type with every field that it may have.
FILE: Final[list[dict[str, Any]]] = [
    CHAPTER,
    STUDENTS,
    COACHES,
    member(1, surname="Lovelace", accepted_toc_at="2020-01-01T00:00:00Z"),
    member(2, deleted=False),
    member(3),
    subscription(1, 1),
    subscription(2, 2, deleted=True),
    {"type": "ban", "id": 1, "member_id": 2, "expires_at": "2027-01-01", "permanent": False},
    EVENT | {"description": "Bring a laptop.", "time_zone": "Europe/Paris", "role_policy": "one", "cancelled_at": None},
    invitation(1, token="abc", attending=True, sent_at="2026-01-01T10:00:00Z"),
    invitation(2, role="Coach"),
    {"type": "member", "id": 3, "deleted": True},
]
DEEP: Final = b"[" * 100_000
_ODD: Final[list[Any]] = [
    None, True, "", " ", "1", 0, -1, 1, 2, 77, 2**63 - 1, 2**63, 10**400, 1.0, 1.5, 1e308, float("nan"), -0.0, [[[]]],
    float("inf"), [], [1, 1], [77], ["1"], {}, {"name": "x"}, {"name": "x", "address": "y", "z": 1}, "\0", "a\0b",
    "\ud800", "\udc00x", "\U0001f986", "x" * 100_000, "a@b", "a@b@c", "a b@c", "@", "é@ü.example",
    "2026-04-09", "2026-04-09T18:30:00", "2026-04-09T18:30:00+99:00", "2026-02-30T00:00:00Z", "0001-01-01T00:00Z",
    "9999-12-31T23:59:59Z", "9999-12-31", "0000-00-00", "yesterday", "1775759400", 1775759400, "2026-W15",
    "Europe/Atlantis", "UTC", "../../etc/passwd", "Students", "students", "workshop", "one", "Coach", ".", "~",
]  # fmt: skip
#: Values that are wrong somewhere, if not everywhere.
VALUES: Final = st.one_of(
    st.sampled_from(_ODD),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda v: st.lists(v, max_size=3)),
)
FIELDS: Final = sorted({field for line in FILE for field in line} | {"colour", "deleted", "\ud800", "\0", "id ", ""})


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """The file with a few things changed, in what it says and in how it is written."""
    lines = copy.deepcopy(FILE)
    for _ in range(draw(st.integers(0, 3))):
        line = draw(st.sampled_from(lines))
        match draw(st.sampled_from(["set", "set", "set", "refer", "host", "remove", "lose", "repeat", "swap"])):
            case "set":
                line[draw(st.sampled_from([*line, draw(st.sampled_from(FIELDS))]))] = draw(VALUES)
            case "refer":
                line = draw(st.sampled_from(lines[6:] or lines))
                name = draw(st.sampled_from([name for name in line if name.endswith(("_id", "_ids"))] or ["id"]))
                line[name] = [77] if name.endswith("s") else 77
            case "host":
                line["host"] = {"name": "x", "address": "y"} | {draw(st.sampled_from(FIELDS)): draw(VALUES)}
            case "remove":
                line.pop(draw(st.sampled_from([*line, "-"])), None)
            case "lose" if len(lines) > 1:
                lines.remove(line)
            case "repeat":
                lines.append(copy.deepcopy(line))
            case _:
                lines = draw(st.permutations(lines))
    plain = draw(st.booleans())
    texts = [json.dumps(line, ensure_ascii=plain).encode("utf-8", "surrogatepass") for line in lines]
    content = draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n"])).join(texts)
    at = draw(st.integers(0, len(content)))
    match draw(st.sampled_from(["", "", "", "", "bom", "cut", "insert", "overwrite", "twice", "key"])):
        case "bom":
            content = b"\xef\xbb\xbf" + content
        case "cut":
            content = content[:at]
        case "insert":
            piece = draw(
                st.sampled_from([b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"\r", b"{", b'"', DEEP])
            )
            content = content[:at] + piece + content[at:]
        case "overwrite":
            piece = draw(st.binary(min_size=1, max_size=6))
            content = content[:at] + piece + content[at + len(piece) :]
        case "twice":
            content += b"\n" + content
        case "key":
            content = content.replace(b'{"type', b'{"id": 1, "id": 2, "type', 1)
    return content


@pytest.fixture
def bidden(database_url: str, conn: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Connection:
    """A directory that is there already, and the settings to import into it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    load(conn, *BASE)
    return conn


def test_any_file(bidden: Connection) -> None:
    """FM-32: a file is imported whole and a repeat changes nothing, or its wrong line and field are named and no byte
    of the database has changed.
    """
    at_first = fingerprint(bidden, "audit_log")
    outcomes = set()

    @fuzz(150)
    @given(content=files())
    @example(content=b"")
    @example(content=b"\n \r\n\xef\xbb\xbf")
    @example(content=b"\xef\xbb\xbf" * 2)
    @example(content=b'{"type":"chapter","id":1,"name":"' + b"x" * 9_000_000 + b'"}')
    @example(content=b'{"a":' + DEEP)
    @example(content=b"\xff\xfe{\x00}\x00")
    def check(content: bytes) -> None:
        said = run("import", "-", "--json", stdin=content)
        said.check()
        outcomes.add(said.code)
        if said.code == 0:
            after = fingerprint(bidden, "audit_log")
            assert run("import", "-", "--json", stdin=content).out == said.out
            assert fingerprint(bidden, "audit_log") == after
            bidden.execute("TRUNCATE chapters, members, events, deliveries, invitations, outcome_outbox CASCADE")
            load(bidden, *BASE)
        else:
            error = said.error
            assert (said.code, error["error"]) == (2, "bad_input"), said
            assert 1 <= error["line"] <= content.count(b"\n") + 1, said
            assert error["field"] is not None or error["detail"].startswith("the line "), said
        assert fingerprint(bidden, "audit_log") == at_first

    check()
    assert outcomes == {0, 2}


def test_lines_that_are_too_much_for_one_statement(bidden: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-32: long texts go to the database in as many statements as they need; a file that cannot be read is named."""
    monkeypatch.setattr(import_staging, "_CHUNK_CHARACTERS", 5_000)
    lines = [EVENT | {"id": number, "description": "x" * 2_000 * number} for number in range(1, 9)]
    said = run("import", "-", "--json", stdin="\n".join(map(json.dumps, lines)).encode())
    assert said.code == 0, said
    rows = bidden.execute("SELECT id, length(description) AS length FROM events ORDER BY id")
    assert [(row["id"], row["length"]) for row in rows] == [(n, 2_000 * n) for n in range(1, 9)]
    said = run("import", "/proc/self/mem", "--json")
    said.check()
    assert (said.code, said.error["field"]) == (2, "file")
