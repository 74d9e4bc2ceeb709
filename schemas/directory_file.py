"""Reads a directory file: bytes in, validated lines out, and errors that name the line and the field.

Lines count as in an editor: they end at a line feed only (not at U+2028 within a text), and blank ones count. Pure:
the caller opens the file and writes to the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from json import JSONDecodeError, JSONDecoder
from typing import Any, BinaryIO, Final, NoReturn

from pydantic import ValidationError

from schemas import limits
from schemas.directory import DELETION_MODELS, LINE_MODELS, LINE_TYPES, MAX_ID, Host, Line
from schemas.errors import InputError
from schemas.text import is_storable
from schemas.wrong_lines import WrongLines

_BOM: Final = b"\xef\xbb\xbf"
#: How a file in UTF-16 begins.
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_BLANK: Final = b" \t\r\n"
#: An error quotes no more of what a line calls a field.
_QUOTED: Final = 100
#: JSON escapes that may stand for what PostgreSQL cannot store: U+0000, halves of surrogate pairs.
_SUSPECT: Final = (b"\\u0000", b"\\ud", b"\\uD")

_WHOLE_NUMBER: Final = f"must be a whole number from 1 to {MAX_ID}"
#: Our texts for pydantic's error types, to follow the field's name. `{expected}` and the like come from its context.
_ERROR_TEXTS: Final[dict[str, str]] = {
    "missing": "is missing",
    "int_type": _WHOLE_NUMBER,
    "greater_than_equal": _WHOLE_NUMBER,
    "less_than_equal": _WHOLE_NUMBER,
    "int_parsing_size": _WHOLE_NUMBER,
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must not be longer than {max_length} characters",
    "list_type": "must be a list",
    "too_short": "must not be empty",
    "too_long": "must not name more than {max_length} chapters",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
}


class _FieldTwiceError(ValueError):
    """One object has the same field twice, and only one of them can be meant."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        times = Counter(name for name, _ in pairs)
        raise _FieldTwiceError(next(name for name in times if times[name] > 1))
    return result


def _no_constant(name: str) -> NoReturn:
    """NaN and Infinity: Python reads them, but they are no JSON."""
    raise ValueError(name)


_DECODER: Final = JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, for `parse_lines`. Of one that is too long only the part that shows it is read.

    Raises InputError for a file that is too long, at the line where it is.
    """
    number = size = 0
    while line := file.readline(limits.LINE + 1):
        number += 1
        size += len(line)
        if size > limits.FILE:
            raise InputError(f"the file is longer than {limits.FILE:,} bytes: import it in parts", line=number)
        yield line


def parse_lines(stream: Iterable[bytes]) -> Iterator[tuple[int, Line]]:
    """The lines of a file opened in binary mode (`stream` yields pieces that end at a line feed), with their numbers.

    A byte order mark at the start and CR LF are accepted; blank lines are counted and skipped. Yields lines up to the
    first that is wrong, then reads the rest and raises InputError, with `line`, `field` where there is one, and the
    `others`.
    """
    wrong = WrongLines()
    try:
        for number, raw in enumerate(stream, 1):
            if number == 1 and raw.startswith(_BOM):
                raw = raw[len(_BOM) :]
            if not raw.strip(_BLANK):
                continue
            try:
                line = parse_line(number, raw)
            except InputError as error:
                wrong.add([error])
                if _ends_reading(number, raw):
                    break
                continue
            if not wrong:
                yield number, line
    except InputError as error:  # of the stream
        wrong.add([error])
    if wrong:
        raise wrong.error()


def _ends_reading(number: int, raw: bytes) -> bool:
    """Whether it makes no sense to read on after a wrong line: its end was not read, or the whole file is no text."""
    return len(raw) > limits.LINE or (number == 1 and (raw.startswith(_UTF16) or b"\0" in raw))


def parse_line(number: int, raw: bytes) -> Line:
    """One line that is not blank. Raises InputError, with the line and the field."""
    if len(raw) > limits.LINE:
        raise _wrong(number, f"is longer than {limits.LINE:,} bytes")
    if raw.startswith(_BOM):
        raise _wrong(number, "begins with a byte order mark, as a file does: were two put together? Remove the mark")
    try:
        value = _DECODER.decode(raw.decode())
    except UnicodeDecodeError as error:
        raise _wrong(number, f"is not UTF-8 text (byte {error.start + 1} of the line)") from error
    except JSONDecodeError as error:
        raise _wrong(number, f"is not JSON: {error.msg} (column {error.colno})") from error
    except _FieldTwiceError as error:
        name = _quoted(str(error))
        raise _wrong(number, f"{name} is there twice", name) from error
    except RecursionError as error:
        raise _wrong(number, "is nested too deeply") from error
    except ValueError as error:
        raise _wrong(number, "holds a number that cannot be read: NaN, Infinity or thousands of digits") from error
    if not isinstance(value, dict):
        raise _wrong(number, "must be a JSON object")
    kind = value.get("type")
    model = LINE_MODELS.get(kind) if isinstance(kind, str) else None
    if model is None:
        problem = "is missing" if kind is None else "is unknown"
        raise _wrong(number, f"type {problem}: it must be one of {', '.join(LINE_TYPES)}", "type")
    if any(escape in raw for escape in _SUSPECT):
        _refuse_unstorable(number, value)
    if None in value.values():
        value = _without_nulls(number, value, model)
    if value.get("deleted") is True and kind in DELETION_MODELS:
        _refuse_unknown(number, value, model)
        model = DELETION_MODELS[kind]
        value = {name: value[name] for name in model.model_fields if name in value}
    # Before validation, which would make an error of each unknown field.
    if len(value) > len(model.model_fields):
        _refuse_unknown(number, value, model)
    _refuse_crowded_host(number, value.get("host"))
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # Unknown fields first: a missing field is often one of them, misspelt.
        _refuse_unknown(number, value, model)
        raise _input_error(number, error) from error


def _without_nulls(number: int, value: dict[str, Any], model: type[Line]) -> dict[str, Any]:
    """Null equals absent; but an unknown field is refused whatever its value."""
    _refuse_unknown(number, value, model)
    return {name: part for name, part in value.items() if part is not None}


def _refuse_unknown(number: int, value: dict[str, Any], model: type[Line]) -> None:
    for name in value:
        if name not in model.model_fields:
            name = _quoted(name)
            kind = model.__name__.lower()
            record = f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
            if name == "deleted":
                raise _wrong(number, f"deleted is not possible: {record} cannot be removed by an import", name)
            fields = ", ".join(model.model_fields)
            raise _wrong(number, f"{name} is no field of {record}; these are: {fields}", name)


def _refuse_crowded_host(number: int, host: object) -> None:
    """More fields than a host has: one of them is unknown."""
    if isinstance(host, dict) and len(host) > len(Host.model_fields):
        field = f"host.{_quoted(next(name for name in host if name not in Host.model_fields))}"
        raise _wrong(number, f"{field} is no field; these are: {', '.join(Host.model_fields)}", field)


def _refuse_unstorable(number: int, value: dict[str, Any]) -> None:
    for name, part in value.items():
        texts = [name, *(part.values() if isinstance(part, dict) else (part,))]
        for text in texts:
            if isinstance(text, str) and not is_storable(text):
                name = _quoted(name)
                problem = "holds a character that cannot be stored: U+0000, or half of a surrogate pair"
                raise _wrong(number, f"{name} {problem}", name)


def _quoted(name: str) -> str:
    return name if len(name) <= _QUOTED else f"{name[:_QUOTED]}…"


def _input_error(number: int, error: ValidationError) -> InputError:
    first = error.errors(include_url=False)[0]
    field = ".".join(_quoted(part) for part in first["loc"] if isinstance(part, str))
    if first["type"] == "extra_forbidden":
        problem = f"is no field; these are: {', '.join(Host.model_fields)}"
    elif first["input"] is None and first["type"] != "value_error":
        problem = "is missing"
    else:
        problem = _ERROR_TEXTS.get(first["type"], first["msg"]).format_map(first.get("ctx", {}))
    return _wrong(number, f"{field} {problem}", field)


def _wrong(number: int, problem: str, field: str | None = None) -> InputError:
    return InputError(problem if field is not None else f"the line {problem}", line=number, field=field)
