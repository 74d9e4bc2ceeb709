"""Loads the named statements of `db/sql/*.sql`.

A file holds blocks that begin with `-- name: NAME` (a statement), `-- fragment: NAME` (text that statements of every
file include as `{{NAME}}`) or `-- function: NAME` (the parameters and body of a function in PL/pgSQL, which includes
statements; they call it by `{{NAME}}`). What stands before the first block, and comment lines directly below a name,
explain. `{{NAME a=b}}` includes NAME with the fragment b wherever it includes a. Parameters are psycopg's `%(name)s`; a
function has them as variables `p_name`.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import LiteralString, NamedTuple, cast

_FOLDER = Path(__file__).parent / "sql"
_HEAD = re.compile(r"^-- (name|fragment|function): (\w+)\s*$", re.MULTILINE)
_INCLUDE = re.compile(r"\{\{(\w+)((?: \w+=\w+)*)\}\}")
_PARAMETER = re.compile(r"%\((\w+)\)s")
_COMMENT = re.compile(r"^\s*--.*\n?", re.MULTILINE)


class _Loaded(NamedTuple):
    """`functions`: of each its name in the database, and what creates it."""

    statements: dict[str, str]
    functions: dict[str, tuple[str, str]]


@cache
def _load() -> _Loaded:
    found: dict[str, dict[str, str]] = {"name": {}, "fragment": {}, "function": {}}
    for path in sorted(_FOLDER.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        heads = list(_HEAD.finditer(text))
        for head, following in zip(heads, [*heads[1:], None], strict=True):
            kind, name = head.groups()
            body = text[head.end() : following.start() if following else None]
            if any(name in blocks for blocks in found.values()):
                raise ValueError(f"{path.name}: {name} is defined twice")
            found[kind][name] = _COMMENT.sub("", body).strip()

    def include(text: str, known: dict[str, str]) -> str:
        def included(match: re.Match[str]) -> str:
            others = dict(pair.split("=") for pair in match[2].split())
            return include(known[match[1]], known | {name: known[other] for name, other in others.items()})

        return _INCLUDE.sub(included, text)

    functions = {}
    for name, body in found["function"].items():
        text = _PARAMETER.sub(r"p_\1", include(body, found["fragment"] | found["name"]))
        full = f"bidden_{name}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        functions[name] = (full, f"CREATE OR REPLACE FUNCTION {full}{text}")
    known = found["fragment"] | {name: full for name, (full, _) in functions.items()}
    return _Loaded({name: include(body, known) for name, body in found["name"].items()}, functions)


def sql(name: str) -> LiteralString:
    """The statement of that name. It is our own text, hence literal; values only ever travel as parameters."""
    return cast("LiteralString", _load().statements[name])  # type: ignore[redundant-cast] # not to other checkers


def names() -> list[str]:
    """All statements, for the test that prepares each of them."""
    return sorted(_load().statements)


def definition(function: str) -> tuple[str, str]:
    """The name of that function in the database, and what creates it there."""
    return _load().functions[function]


def functions() -> dict[str, str]:
    """All functions by their names here, with their names in the database."""
    return {name: full for name, (full, _) in _load().functions.items()}
