"""Loads the named statements of `db/sql/*.sql`.

A file holds blocks that begin with `-- name: NAME` (a statement) or `-- fragment: NAME` (text that statements
of every file include as `{{NAME}}`). What stands before the first block, and comment lines directly below a
name, explain; parameters are psycopg's `%(name)s`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import LiteralString, cast

_FOLDER = Path(__file__).parent / "sql"
_HEAD = re.compile(r"^-- (name|fragment): (\w+)\s*$", re.MULTILINE)
_INCLUDE = re.compile(r"\{\{(\w+)\}\}")
_COMMENT = re.compile(r"^\s*--.*\n?", re.MULTILINE)


@cache
def _load() -> dict[str, str]:
    statements: dict[str, str] = {}
    fragments: dict[str, str] = {}
    for path in sorted(_FOLDER.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        heads = list(_HEAD.finditer(text))
        for head, following in zip(heads, [*heads[1:], None], strict=True):
            kind, name = head.groups()
            body = text[head.end() : following.start() if following else None]
            target = statements if kind == "name" else fragments
            if name in statements or name in fragments:
                raise ValueError(f"{path.name}: {name} is defined twice")
            target[name] = _COMMENT.sub("", body).strip()

    def include(text: str) -> str:
        return _INCLUDE.sub(lambda m: include(fragments[m.group(1)]), text)

    return {name: include(body) for name, body in statements.items()}


def sql(name: str) -> LiteralString:
    """The statement of that name. It is our own text, hence literal; values only ever travel as parameters."""
    return cast("LiteralString", _load()[name])  # type: ignore[redundant-cast] # not to other checkers


def names() -> list[str]:
    """All statements, for the test that prepares each of them."""
    return sorted(_load())
