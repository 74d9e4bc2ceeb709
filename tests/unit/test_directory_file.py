"""Reading a directory file: lines and their numbers, and InputError for every failure."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.directory import LINE_MODELS, LINE_TYPES, Deletion, Member
from schemas.directory_file import parse_lines
from schemas.errors import InputError

MEMBER: dict[str, Any] = {"type": "member", "id": 1, "name": "Ada", "email": "ada@example.org"}
GOOD = json.dumps(MEMBER).encode()


def numbers(content: bytes) -> list[int]:
    return [number for number, _ in parse_lines(io.BytesIO(content))]


def outcome(content: bytes) -> InputError | None:
    """The InputError, or None; any other error fails the test."""
    try:
        numbers(content)
    except InputError as error:
        return error
    return None


def refusal(content: bytes) -> InputError:
    with pytest.raises(InputError) as caught:
        numbers(content)
    return caught.value


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n \r\n\t\n", []),
        (GOOD, [1]),
        (GOOD + b"\n", [1]),
        (b"\n\n" + GOOD + b"\n\n" + GOOD, [3, 5]),
        (GOOD + b"\r\n" + GOOD + b"\r\n", [1, 2]),
        (b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD, [1, 2]),
        (b"\xef\xbb\xbf\n" + GOOD, [2]),
        (b"  " + GOOD + b" \n", [1]),
    ],
)
def test_lines_are_counted_as_an_editor_does(content: bytes, expected: list[int]) -> None:
    """Blank lines count and are skipped; CR LF, a byte order mark and a missing last line feed are fine."""
    assert numbers(content) == expected


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1e"])
def test_a_separator_inside_a_text_ends_no_line(separator: str) -> None:
    """Only a line feed ends a line: other separators of Python's splitlines are part of the name."""
    name = f"a{separator}b"
    raw = separator.isprintable() or ord(separator) > 0x7F
    line = json.dumps(MEMBER | {"name": name}, ensure_ascii=not raw).encode() + b"\n"
    parsed = list(parse_lines(io.BytesIO(line + GOOD)))
    assert [number for number, _ in parsed] == [1, 2]
    first = parsed[0][1]
    assert isinstance(first, Member)
    assert first.name == name


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"{", None),
        (b"not json", None),
        (b"[]", None),
        (b'"member"', None),
        (b"null", None),
        (GOOD + GOOD, None),
        (GOOD + b",", None),
        (b"\xff\xfe{\x00", None),
        (GOOD.replace(b"Ada", b"\xe9"), None),
        (GOOD.replace(b"Ada", b"A\x00a"), None),
        (b'{"id": NaN}', None),
        (b'{"id": ' + b"9" * 5000 + b"}", None),
        (b"[" * 100_000, None),
        (b'{"type": "member", "id": 1, "id": 2}', "id"),
        (b'{"type": "event", "host": {"name": "a", "name": "b"}}', "name"),
        (b'{"type": "member", "\\ud800": 1}', "\\ud800"),
        (b'{"type": "member", "a\\u0000": 1}', "a\\x00"),
        (b'{"type": "member", "surname": "\\uDBFF"}', "surname"),
    ],
)
def test_lines_that_cannot_be_read(line: bytes, field: str | None) -> None:
    """Whatever the third line is, the error names line 3 and can be printed."""
    error = refusal(GOOD + b"\n\n" + line + b"\n" + GOOD)
    assert (error.line, error.field) == (3, field)
    assert error.detail.isprintable()


def test_the_first_wrong_line_is_named() -> None:
    """Lines before it were returned: the reader streams."""
    lines = parse_lines([GOOD, b"{}", b"worse"])
    assert next(lines)[0] == 1
    with pytest.raises(InputError) as caught:
        next(lines)
    assert (caught.value.line, caught.value.field) == (2, "type")


def test_a_deleted_line_is_a_deletion() -> None:
    """A deletion is of another class, so that it is never mistaken for a record."""
    ((_, line),) = parse_lines([b'{"type": "member", "id": 5, "deleted": true}'])
    assert line == Deletion(type="member", id=5)


@given(st.binary(max_size=200))
def test_any_bytes_raise_only_an_input_error(content: bytes) -> None:
    """Any bytes are read, or raise InputError with a line that exists."""
    error = outcome(content)
    if error is not None:
        assert error.line is not None
        assert 1 <= error.line <= content.count(b"\n") + 1
        assert error.detail.isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from(LINE_TYPES),
    st.dictionaries(
        st.sampled_from(sorted({name for model in LINE_MODELS.values() for name in model.model_fields} - {"type"})),
        json_values,
    ),
)
def test_any_values_raise_only_an_input_error(kind: str, fields: dict[str, Any]) -> None:
    """Known fields with values of any shape are read, or refused by a field that can be printed."""
    error = outcome(json.dumps({"type": kind} | fields).encode())
    if error is not None:
        assert error.line == 1
        assert error.detail.isprintable()


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), max_size=8))
def test_names_are_read_back_unchanged(names: list[str]) -> None:
    """Any text, written raw or escaped, is one line and comes back whole."""
    for escaped in (True, False):
        content = b"\n".join(json.dumps(MEMBER | {"name": name}, ensure_ascii=escaped).encode() for name in names)
        parsed = [line for _, line in parse_lines(io.BytesIO(content))]
        assert [line.name for line in parsed if isinstance(line, Member)] == names
