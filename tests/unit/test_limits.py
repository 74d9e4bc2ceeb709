"""Limits at the door, and what they protect: everything that touches a text takes linear time."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from mail import headers, quoted_printable
from mail.compose import CompiledTemplate
from mail.render import render
from mail.sanitize import one_line, paragraphs
from schemas import limits
from schemas.directory_file import parse_lines, read_lines
from schemas.envelope import Envelope
from schemas.errors import InputError
from schemas.invitation import EventDetails, Recipient
from schemas.keys import DeliveryKey
from schemas.mail_address import address_problem
from schemas.message import UndecodableError, decode
from schemas.vocabulary import EventKind, Role
from tests.unit.directory_lines import BAN, CHAPTER, EVENT, INVITATION, MEMBER, SUBSCRIPTION, parse, refusal

AT = datetime(2030, 6, 1, 12, tzinfo=UTC)
#: Twice as much may take this many times as long: linear is 2, quadratic 4.
GROWTH = 3.2
#: Nothing is so slow on any machine.
CEILING_SECONDS = 5.0
#: Texts that are hard in different ways; repeated to a length.
UNITS = ["a", "hello ", "\U0001f600", "=a", "&", '"', "a\n", "a\n\n", "\x01a", " ", "\n", "ä", "\ud800", "a-", "=?"]


def seconds(act: Callable[[], object]) -> float:
    """The least processor time of several runs: what the machine does besides only adds."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        act()
        best = min(best, time.process_time() - began)
    return best


def assert_linear(act: Callable[[int], Callable[[], object]], size: int) -> None:
    """Twice the size takes about twice the time. Three chances: the machine may be busy."""
    for _ in range(3):
        once, twice = seconds(act(size)), seconds(act(2 * size))
        if twice <= GROWTH * once + 0.005:
            break
    else:
        pytest.fail(f"{size:,}: {once:.4f} s, twice that: {twice:.4f} s")
    assert twice < CEILING_SECONDS


def event(**fields: Any) -> EventDetails:
    usual: dict[str, Any] = {
        "event_id": 7,
        "kind": EventKind.EVENT,
        "name": "Summer",
        "description": None,
        "chapter_names": ("London",),
        "chapter_email": "london@example.org",
        "starts_at": datetime(2030, 7, 3, 17, 30, tzinfo=UTC),
        "ends_at": datetime(2030, 7, 3, 20, 0, tzinfo=UTC),
        "time_zone": "Europe/London",
        "host_name": "Acme",
        "host_address": "1 High Street",
    }
    return EventDetails(**usual | fields)


def composed(details: EventDetails, name: str = "Ada", surname: str | None = None) -> Envelope:
    template = CompiledTemplate(details, Role.STUDENT, "Club <hello@example.org>", "https://bidden.example.org")
    recipient = Recipient(3, name, surname, "ada@example.org", "secret")
    mail = template.compose(recipient, DeliveryKey(7, "invite", 3, "Student"), AT)
    assert isinstance(mail, Envelope)
    return mail


def repeated(unit: str, length: int) -> str:
    return (unit * length)[:length]


@pytest.mark.parametrize(
    ("line", "field", "most"),
    [
        (MEMBER, "name", limits.NAME),
        (MEMBER, "surname", limits.NAME),
        (CHAPTER, "name", limits.NAME),
        (EVENT, "name", limits.NAME),
        (EVENT, "description", limits.DESCRIPTION),
    ],
)
def test_a_text_at_its_limit_is_accepted_and_one_character_more_is_refused(
    line: dict[str, Any], field: str, most: int
) -> None:
    """FM-41: names and descriptions have limits, in characters; the error names line, field and limit."""
    assert getattr(parse(line | {field: "🦄" * most}), field) == "🦄" * most
    error = refusal(line | {field: "x" * (most + 1)})
    assert error.field == field
    assert str(most) in error.detail


def test_other_limits_of_a_record() -> None:
    """FM-41: host, address, token and chapters have limits, too."""
    host = {"name": "x" * limits.NAME, "address": "x" * limits.HOST_ADDRESS}
    parse(EVENT | {"host": host, "chapter_ids": list(range(1, limits.CHAPTERS + 1))})
    assert refusal(EVENT | {"host": host | {"name": host["name"] + "x"}}).field == "host.name"
    assert refusal(EVENT | {"host": host | {"address": host["address"] + "x"}}).field == "host.address"
    assert refusal(EVENT | {"chapter_ids": list(range(1, limits.CHAPTERS + 2))}).field == "chapter_ids"
    assert refusal(INVITATION | {"token": "x" * 201}).field == "token"
    assert refusal(MEMBER | {"email": "a@" + "b" * (limits.EMAIL - 1)}).field == "email"


def test_a_pasted_picture_is_refused_by_line_and_field() -> None:
    """FM-41: a description of 8 MB, which once ended every worker that composed it."""
    picture = f'<p>Come along!</p><img src="data:image/png;base64,{"A1b2" * 1_980_000}">'
    lines = [json.dumps(line).encode() + b"\n" for line in (CHAPTER, EVENT | {"description": picture})]
    assert len(lines[1]) < limits.LINE
    with pytest.raises(InputError) as caught:
        list(parse_lines(read_lines(io.BytesIO(b"".join(lines)))))
    assert (caught.value.line, caught.value.field) == (2, "description")


def test_a_line_without_end_is_not_read_to_its_end() -> None:
    """FM-41: a file that is one endless line is refused with what shows it; memory holds no more."""

    class Endless(io.RawIOBase):
        handed_out = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:] = b"x" * len(buffer)
            self.handed_out += len(buffer)
            return len(buffer)

    endless = Endless()
    with pytest.raises(InputError) as caught:
        list(parse_lines(read_lines(io.BufferedReader(endless))))
    assert caught.value.line == 1
    assert endless.handed_out < 2 * limits.LINE


def test_a_file_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-41: an import reads a file into memory: there is a limit, and the error names the line where it is."""
    monkeypatch.setattr(limits, "FILE", 1000)
    line = json.dumps(MEMBER).encode() + b"\n"
    with pytest.raises(InputError) as caught:
        list(parse_lines(read_lines(io.BytesIO(line * 100))))
    assert caught.value.line == 1000 // len(line) + 1
    assert "1,000 bytes" in caught.value.detail


def test_an_error_quotes_no_long_name() -> None:
    """FM-41: a field's name can be a megabyte; the error about it cannot."""
    for line in (MEMBER | {"x" * 1_000_000: 1}, EVENT | {"host": {"x" * 1_000_000: 1}}):
        error = refusal(line)
        assert len(error.detail) < 500
        assert error.field is not None
        assert len(error.field) < 200
    with pytest.raises(InputError) as caught:
        list(parse_lines([b'{"%s": 1, "%s": 2}' % (b"x" * 1_000_000, b"x" * 1_000_000)]))
    assert len(caught.value.detail) < 500


def many_fields(size: int) -> str:
    """Thousands of different fields, and the last of them twice."""
    names = [f'"field{n}": 1' for n in range(size // 14)]
    return "{" + ", ".join([*names, names[-1]]) + "}"


SLOW_LINES: dict[str, Callable[[int], str]] = {
    "fields": many_fields,
    "unknown fields": lambda size: json.dumps(MEMBER | {f"f{n}": 1 for n in range(size // 9)}),
    "chapters": lambda size: json.dumps(EVENT | {"chapter_ids": ["a"] * (size // 5)}),
    "chapter twice": lambda size: json.dumps(EVENT | {"chapter_ids": [1] * (size // 3)}),
    "host": lambda size: json.dumps(EVENT | {"host": {f"f{n}": 1 for n in range(size // 9)}}),
    "email": lambda size: json.dumps(MEMBER | {"email": repeated("a-", size) + "!"}),
    "time": lambda size: json.dumps(MEMBER | {"accepted_toc_at": "2" * size}),
    "ban": lambda size: json.dumps(BAN | {"expires_at": "2026-05-31T00:00:00." + "1" * size + "!"}),
    "number": lambda size: json.dumps(SUBSCRIPTION)[:-1] + ', "x": 1.' + "1" * size + "}",
    "escapes": lambda size: '{"type": "member", "name": "' + "\\ud800" * (size // 6) + '"}',
    "time zone": lambda size: json.dumps(CHAPTER | {"time_zone": "E/" * (size // 2)}),
    "unfinished": lambda size: '{"type": "member", "name": "' + "\\n" * (size // 2),
}


@pytest.mark.parametrize("kind", SLOW_LINES)
def test_reading_a_line_takes_linear_time(kind: str) -> None:
    """FM-41: a line of 165 kB once took 4.5 s."""

    def act(size: int) -> Callable[[], object]:
        raw = SLOW_LINES[kind](size).encode()

        def read() -> None:
            with pytest.raises(InputError):
                list(parse_lines([raw]))

        return read

    assert_linear(act, 165_000)


@pytest.mark.parametrize("depth", [3, 500, 5_000, 500_000])
@pytest.mark.parametrize("opening", ["[", '{"a":', '{"type":"member","name":[', '{"type":"event","host":{"name":'])
def test_deep_lines_are_refused(opening: str, depth: int) -> None:
    """FM-41: nesting ends no process, whatever its depth."""
    for closed in (False, True):
        line = opening * depth + ("1" + {"[": "]", "{": "}"}[opening[0]] * depth if closed else "")
        with pytest.raises(InputError):
            list(parse_lines([line.encode()]))


#: Everything between a text of the directory and the bytes of a mail, without the limits.
STEPS: dict[str, Callable[[str], object]] = {
    "part": lambda text: quoted_printable.fixed(text, value_before=True, value_after=True),
    "value": lambda text: quoted_printable.lines_of_its_own(quoted_printable.encoded(text).encode()),
    "mailbox": lambda text: headers.mailbox("To", one_line(text), "ada@example.org"),
    "subject": lambda text: headers.unstructured("Subject", one_line(text)),
    "paragraphs": paragraphs,
}


@pytest.mark.parametrize("unit", ["a", "word ", "\U0001f600", "=a", "a\n", "?"])
@pytest.mark.parametrize("step", STEPS)
def test_each_step_takes_linear_time(step: str, unit: str) -> None:
    """FM-41: folding once took quadratic time: 2.8 s for 2 MB, and a minute for 8."""

    def act(size: int) -> Callable[[], object]:
        text = repeated(unit, size)
        return lambda: STEPS[step](text)

    assert_linear(act, 100_000)


@pytest.mark.parametrize("unit", UNITS)
def test_a_mail_at_its_limits(unit: str) -> None:
    """FM-41: composing takes a moment, also when every text is at its limit. Prints how long."""
    at_limit = event(
        name=repeated(unit, limits.NAME),
        description=repeated(unit, limits.DESCRIPTION),
        chapter_names=(repeated(unit, limits.NAME),) * limits.CHAPTERS,
        host_name=repeated(unit, limits.NAME),
        host_address=repeated(unit, limits.HOST_ADDRESS),
    )
    of_all = seconds(lambda: composed(at_limit, repeated(unit, limits.NAME), repeated(unit, limits.NAME)))
    of_description = seconds(lambda: composed(event(description=at_limit.description)))
    print(f"{unit!r}: description {of_description * 1000:.1f} ms, all at their limits {of_all * 1000:.1f} ms")
    assert of_all < CEILING_SECONDS


@pytest.mark.parametrize("unit", ["a", "\U0001f600", "=a", "a\n\n", "word "])
def test_texts_of_earlier_versions_are_cut_in_the_mail(unit: str) -> None:
    """FM-41: the database may hold longer texts; their mails are cut, and take no longer than those at the limit."""
    size = 8_000_000
    stored = event(
        name=repeated(unit, size),
        description=repeated(unit, size),
        chapter_names=(repeated(unit, size), "London"),
        chapter_email=repeated(unit, size),
        host_name=repeated(unit, size),
        host_address=repeated(unit, size),
    )
    began = time.perf_counter()
    mail = composed(stored, repeated(unit, size), repeated(unit, size))
    assert time.perf_counter() - began < CEILING_SECONDS
    assert len(mail.data) < 5_000_000
    assert max(map(len, mail.data.split(b"\r\n"))) <= 998


def test_a_cut_description_says_so() -> None:
    """FM-41: the reader of a mail sees that something is missing; a description at its limit is whole."""

    def texts(length: int) -> tuple[str, str]:
        details = event(description="Bring a laptop.\n\n" + "x" * (length - 17))
        rendered = render(details, Role.STUDENT, name="Ada", rsvp_url="r", unsubscribe_url="u")
        return rendered.text, rendered.html

    for text in texts(limits.DESCRIPTION):
        assert "left out" not in text
        assert "x" * (limits.DESCRIPTION - 17) in text
    for text in texts(limits.DESCRIPTION + 1):
        assert text.count("The rest of it is left out.") == 1
        assert "x" * (limits.DESCRIPTION - 17) in text


def test_an_event_of_very_many_chapters() -> None:
    """The mail names as many as a sentence can hold, and says how many more there are."""
    names = tuple(f"Chapter {n} of the town by the river" for n in range(1000))
    rendered = render(event(chapter_names=names), Role.STUDENT, name="Ada", rsvp_url="r", unsubscribe_url="u")
    assert names[0] in rendered.text
    assert names[-1] not in rendered.text
    assert "more would like to invite you" in rendered.text
    few = render(event(chapter_names=names[:54]), Role.STUDENT, name="Ada", rsvp_url="r", unsubscribe_url="u")
    assert f"and {names[53]} would like" in few.text


@pytest.mark.parametrize("unit", ["a", "a.", "a-", ".", "@", '"', "é", " "])
def test_checking_an_address_takes_linear_time(unit: str) -> None:
    """FM-41: no expression backtracks without end."""

    def act(size: int) -> Callable[[], object]:
        text = unit * size
        return lambda: [address_problem(address) for address in (text, f"{text}@b", f"a@{text}", f"a@b{text}!")]

    assert_linear(act, 100_000)


@pytest.mark.parametrize(
    "value",
    [
        b"x" * (limits.MESSAGE + 1),
        b"[" * 900_000,
        b'{"a":' * 200_000,
        b'{"version": 1, "roles": [' + b"1," * 400_000 + b"1]}",
    ],
)
def test_a_large_message_is_refused_before_it_is_parsed(value: bytes) -> None:
    """FM-41: the reason of the dead letter says how large it may be."""
    began = time.perf_counter()
    with pytest.raises(UndecodableError, match="10,000"):
        decode(b"1", value)
    assert time.perf_counter() - began < CEILING_SECONDS / 10


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"roles":['])
def test_a_deep_message_is_refused(opening: bytes) -> None:
    """FM-41: nesting within the limit of size ends no process either."""
    value = opening * (limits.MESSAGE // len(opening))
    with pytest.raises(UndecodableError):
        decode(b"1", value)
