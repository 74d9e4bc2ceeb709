"""All wrong lines of a file: the first leads as ever, twenty are named, the others counted."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from cli.output import write_error
from schemas import limits
from schemas.directory_file import parse_lines, read_lines
from schemas.errors import InputError
from schemas.wrong_lines import MOST_NAMED, WrongLines
from tests.unit.test_limits import assert_linear

GOOD = b'{"type":"member","id":1,"name":"Ada","email":"ada@example.org"}'
NO_NAME = b'{"type":"member","id":1,"email":"ada@example.org"}'


def refusal(*lines: bytes) -> InputError:
    with pytest.raises(InputError) as caught:
        list(parse_lines(read_lines(io.BytesIO(b"\n".join(lines)))))
    return caught.value


def named(error: InputError) -> list[tuple[int | None, str | None]]:
    return [(e.line, e.field) for e in (error, *error.others)]


def test_every_wrong_line_is_named() -> None:
    """C18: with line, field and problem; good and blank lines between them count as lines."""
    error = refusal(GOOD, NO_NAME, b"", b"no JSON", GOOD, b'{"type":"mmber"}')
    assert named(error) == [(2, "name"), (4, None), (6, "type")]
    answer = error.as_dict()
    first, *further = str(answer.pop("detail")).splitlines()
    assert answer == {"error": "bad_input", "line": 2, "field": "name"}
    assert first == "name is missing"
    assert [text.partition(": ")[0] for text in further] == ["line 4", "line 6"]


def test_one_wrong_line_is_told_as_ever() -> None:
    """The object on stderr has no further keys."""
    assert refusal(GOOD, NO_NAME, GOOD).as_dict() == {
        "error": "bad_input",
        "detail": "name is missing",
        "line": 2,
        "field": "name",
    }


@pytest.mark.parametrize(("count", "more"), [(20, 0), (21, 1), (1234, 1214)])
def test_twenty_are_named_and_the_others_counted(
    count: int, more: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For programs and for people."""
    error = refusal(*[NO_NAME] * count)
    assert named(error) == [(line, "name") for line in range(1, MOST_NAMED + 1)]
    assert (error.more, len(str(error.as_dict()["detail"]).splitlines())) == (more, MOST_NAMED + (more > 0))
    write_error(error, as_json=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "bad input: line 1: name is missing"
    assert lines[19] == "  line 20: name is missing"
    assert lines[20:] == ([f"  and {more:,} more wrong line{'s' * (more > 1)}"] if more else [])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([GOOD.decode().encode("utf-16"), NO_NAME], [(1, None)]),
        ([b"\x1f\x8b\x08\x00\x00", NO_NAME], [(1, None)]),
        ([NO_NAME, b"x" * (limits.LINE + 1), NO_NAME], [(1, "name"), (2, None)]),
        # In Latin-1 single lines are wrong.
        ([NO_NAME, GOOD.replace(b"Ada", b"\xe9"), GOOD], [(1, "name"), (2, None)]),
    ],
    ids=["UTF-16", "no text", "a line without end", "Latin-1"],
)
def test_where_reading_on_makes_no_sense(lines: list[bytes], expected: list[tuple[int, str | None]]) -> None:
    """A file that is no text at all is refused at its first line; after a line whose end was not read none follows."""
    assert named(refusal(*lines)) == expected


def test_a_file_that_is_too_long_is_the_last_thing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was wrong before its end leads."""
    monkeypatch.setattr(limits, "FILE", 150)
    error = refusal(NO_NAME, GOOD, GOOD)
    assert named(error) == [(1, "name"), (3, None)]


def test_the_first_check_that_finds_something_leads() -> None:
    """The others follow in the order of lines, whatever check found them and in what order."""
    wrong = WrongLines()
    wrong.add([])
    wrong.add(InputError("b", line=line) for line in (9, 7, 8))
    wrong.add(InputError("a", line=line) for line in range(1, 4))
    error = wrong.error()
    assert [e.line for e in (error, *error.others)] == [7, 1, 2, 3, 8, 9]
    assert error.more == 0


def test_wrong_lines_take_linear_time() -> None:
    """FM-41: a file of which every line is wrong takes as long as it is."""

    def act(size: int) -> Callable[[], object]:
        lines: list[Any] = [json.dumps({"type": "member", "id": n}).encode() for n in range(size)]

        def read() -> None:
            with pytest.raises(InputError) as caught:
                list(parse_lines(lines))
            assert caught.value.more == size - MOST_NAMED

        return read

    assert_linear(act, 5_000)
