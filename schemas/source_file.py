"""The source file: one SQL file of named queries, which says how an organisation's own database is read.

    -- name: member
    SELECT id, name, surname, email, accepted_toc_at FROM members

One query for each type of line of the directory file; its columns are that line's fields, and may include `deleted`
where a line may. `:zone` in a query stands for the time zone of the source, as a quoted text. A file may also have
statements that write into the source. Two get `:rows`, a JSON array of objects:

- `place`: invitations (`event_id`, `member_id`, `role`, `token`) that the source is to have before their mails go out.
  It returns, for each that is there then, these four and `ours`: whether we made that row.
- `leave`: who left a list (`member_id`, `group_id`).

And one gets `:batch`, a JSON object, and `:entries`, a JSON array of objects:

- `report`: what became of a batch, and of its members. It returns a row when the source has it; none: not now.

Pure: who opens the file and the database is `db.source`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, StrictBool

from schemas.directory import LINE_MODELS, LINE_TYPES, Id, Token
from schemas.errors import InputError
from schemas.vocabulary import Role

_HEAD: Final = re.compile(r"^--[ \t]*name:[ \t]*(\S*)[ \t]*$", re.MULTILINE)
#: Comments, quoted texts and names: there `:zone` is no parameter. A cast to a type `zone` is none either.
_NOT_SQL: Final = (
    r"(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<quoted>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"
)
_COMMENT: Final = re.compile(_NOT_SQL, re.DOTALL)
_PARAMETER: Final = re.compile(rf"{_NOT_SQL}|(?<!:):(?P<name>zone|rows|batch|entries)\b", re.DOTALL)
_END: Final = re.compile(r"[\s;]+\Z")

#: The statement that hands over invitations.
PLACE: Final = "place"
#: The statement that writes back what became of a batch.
REPORT: Final = "report"
#: The statement that writes back who left a list.
LEAVE: Final = "leave"
#: The statements that write into the source, with their parameters, and what these are where there is nothing to write.
#: A file need not have any.
WRITES: Final[Mapping[str, Mapping[str, Any]]] = {
    PLACE: {"rows": []},
    REPORT: {"batch": {}, "entries": []},
    LEAVE: {"rows": []},
}

#: The kinds of SQL type, by name, that each kind of field takes.
_NUMBERS: Final = frozenset({"smallint", "integer", "bigint"})
_TEXTS: Final = frozenset({"text", "character varying", "character", "name", "citext", "uuid"})
_TIMES: Final = frozenset({"timestamp with time zone", "timestamp without time zone"})
_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "id": _NUMBERS,
    "chapter_id": _NUMBERS,
    "group_id": _NUMBERS,
    "member_id": _NUMBERS,
    "event_id": _NUMBERS,
    "chapter_ids": frozenset({"smallint[]", "integer[]", "bigint[]", "json", "jsonb"}),
    "host": frozenset({"json", "jsonb"}),
    "accepted_toc_at": _TIMES,
    "starts_at": _TIMES,
    "ends_at": _TIMES,
    "cancelled_at": _TIMES,
    "sent_at": _TIMES,
    "expires_at": _TIMES | {"date"},
    "permanent": frozenset({"boolean"}),
    "invitable": frozenset({"boolean"}),
    "ours": frozenset({"boolean"}),
    "attending": frozenset({"boolean"}),
    "deleted": frozenset({"boolean"}),
}


class Placed(BaseModel):
    """A row that `place` returns: the invitation that the source has. `ours`: we made it, now or before."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    event_id: Id
    member_id: Id
    role: Role
    token: Token
    ours: StrictBool


@dataclass(frozen=True, slots=True)
class Query:
    """One query of the file. `line` is where its text begins, as an editor counts."""

    name: str
    text: str
    line: int


def parse(text: str) -> dict[str, Query]:
    """The queries by name, one for each type of line, in the order of LINE_TYPES; then those of WRITES that there are.

    Raises InputError, with the line, for a query that is unknown, doubled or empty, or missing.
    """
    heads = list(_HEAD.finditer(text))
    found: dict[str, Query] = {}
    ends = [*(head.start() for head in heads[1:]), len(text)]
    for head, end in zip(heads, ends[: len(heads)], strict=True):
        name, number = head[1], text.count("\n", 0, head.start()) + 1
        if name not in (*LINE_TYPES, *WRITES):
            known = ", ".join((*LINE_TYPES, *WRITES))
            raise InputError(f"{name!r} is no query of a source; these are: {known}", line=number)
        if name in found:
            raise InputError(f"the query {name} is there twice", line=number)
        body = _END.sub("", text[head.end() : end])
        if not _COMMENT.sub(lambda match: match["quoted"] or " ", body).strip():
            raise InputError(f"the query {name} is empty", line=number)
        found[name] = Query(name, body, number)
    for name in LINE_TYPES:
        if name not in found:
            raise InputError(f"the query {name} is missing: a line `-- name: {name}`, and the query below it")
    return {name: found[name] for name in (*LINE_TYPES, *WRITES) if name in found}


def with_values(query: str, values: Mapping[str, str]) -> str:
    """The query with these values, as quoted texts, in place of its parameters of these names."""

    def value(match: re.Match[str]) -> str:
        found = values.get(match["name"] or "")
        return match[0] if found is None else "'" + found.replace("'", "''") + "'"

    return _PARAMETER.sub(value, query)


def check_columns(query: Query, columns: Mapping[str, str]) -> None:
    """Refuse a query with these columns (with their SQL types): one is unknown, missing, or can never hold its field.

    Raises InputError, with query and field.
    """
    model = Placed if query.name == PLACE else LINE_MODELS[query.name]
    fields: dict[str, bool] = {
        name: field.is_required() for name, field in model.model_fields.items() if name != "type"
    }
    for column, sql_type in columns.items():
        if column not in fields:
            raise _wrong(query, column, f"{column} is no field of this type; these are: {', '.join(fields)}")
        wanted = _TYPES.get(column, _TEXTS)
        # The type of a bare NULL, or of a quoted text, is not known before the query runs.
        if sql_type not in wanted and sql_type != "unknown" and not _is_enum(column, sql_type):
            raise _wrong(query, column, f"{column} has the type {sql_type}; it must be {' or '.join(sorted(wanted))}")
    for name, required in fields.items():
        if required and name not in columns:
            raise _wrong(query, name, f"the column {name} is missing")


def check_file(queries: Mapping[str, Query], columns: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse queries, with the columns of each, that do not fit together. Raises InputError."""
    if PLACE in queries and "token" not in columns["invitation"]:
        query = queries["invitation"]
        raise _wrong(query, "token", "the column token is missing, by which a row is known that `place` has made")


def _is_enum(column: str, sql_type: str) -> bool:
    """Whether the type is one that the organisation made, for a field that is text: its labels are text."""
    known = set().union(*_TYPES.values()) | {"numeric", "real", "double precision", "date", "bytea", "interval"}
    return column not in _TYPES and sql_type not in known and not sql_type.endswith("[]")


def _wrong(query: Query, field: str, problem: str) -> InputError:
    return InputError(f"the query {query.name}: {problem}", line=query.line, field=field)
