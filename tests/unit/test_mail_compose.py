"""Mails as a mail reader sees them: every composed message is parsed again by the standard library."""

from __future__ import annotations

import email
import html
import re
import time
from datetime import UTC, datetime, timedelta, timezone
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mail.compose import CompiledTemplate
from mail.sanitize import one_line
from schemas.envelope import Envelope, Unmailable
from schemas.invitation import EventDetails, Recipient
from schemas.keys import DeliveryKey
from schemas.mail_address import parse_sender
from schemas.vocabulary import EventKind, Role

AT = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)
KEY = DeliveryKey(7, "invite", 3, "Student")
MAIL_FROM = "Coding Club <hello@example.org>"
BASE = "https://bidden.example.org"
HEADERS = {
    "To",
    "Date",
    "Message-ID",
    "X-Bidden-Delivery",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "From",
    "Reply-To",
    "Subject",
    "List-Id",
    "Auto-Submitted",
    "Precedence",
    "MIME-Version",
    "Content-Type",
}


def event(
    *,
    kind: EventKind = EventKind.WORKSHOP,
    name: str = "Summer workshop",
    description: str | None = "Bring a laptop.\nAnd a friend.\n\nSee you!",
    chapter_names: tuple[str, ...] = ("London",),
    chapter_email: str = "london@example.org",
    time_zone: str = "Europe/London",
    host_name: str | None = "Acme",
    host_address: str | None = "1 High Street\nLondon",
    rsvp_url: str | None = None,
) -> EventDetails:
    return EventDetails(
        event_id=7,
        kind=kind,
        name=name,
        description=description,
        chapter_names=chapter_names,
        chapter_email=chapter_email,
        starts_at=datetime(2030, 7, 3, 17, 30, tzinfo=UTC),
        ends_at=datetime(2030, 7, 3, 20, 0, tzinfo=UTC),
        time_zone=time_zone,
        host_name=host_name,
        host_address=host_address,
        rsvp_url=rsvp_url,
    )


def recipient(
    name: str = "Ada",
    surname: str | None = "Lovelace",
    address: str = "ada@example.org",
    token: str = "abcDEF-_0123456789abcd",
) -> Recipient:
    return Recipient(3, name, surname, address, token)


def composed(details: EventDetails | None = None, to: Recipient | None = None, role: Role = Role.STUDENT) -> Envelope:
    mail = CompiledTemplate(details or event(), role, MAIL_FROM, BASE).compose(to or recipient(), KEY, AT)
    assert isinstance(mail, Envelope)
    return mail


def parsed(mail: Envelope) -> EmailMessage:
    # A header beyond ASCII is UTF-8 (RFC 6532); the bytes parser of the library takes it for unknown.
    message = email.message_from_string(mail.data.decode(), policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def part(mail: Envelope, subtype: str) -> str:
    body = parsed(mail).get_body((subtype,))
    assert isinstance(body, EmailMessage)
    content = body.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")


def addressed(mail: Envelope) -> tuple[str, str]:
    """Name and address of `To`, read by RFC 2047.

    The parser of `policy.default` in Python 3.11 puts a space between two encoded words, so it serves only
    where there is one.
    """
    raw = email.message_from_bytes(mail.data, policy=policy.compat32)["To"]
    match = re.fullmatch(r"(.*?)\s*<([^<>]*)>", raw.replace("\r\n", ""))
    assert match is not None
    phrase, address = match.groups()
    quoted = phrase.startswith('"')
    name = re.sub(r"\\(.)", r"\1", phrase[1:-1]) if quoted else str(make_header(decode_header(phrase)))
    if quoted or len(phrase.split()) == 1:
        (mailbox,) = parsed(mail)["To"].addresses
        # It also shrinks white space within encoded words.
        assert mailbox.display_name.split() == name.split()
    return name, address


def test_headers_of_a_mail() -> None:
    """All headers that readers, providers and the ledger need, each once."""
    message = parsed(composed())
    assert sorted(message.keys()) == sorted(HEADERS)
    assert message["To"].addresses[0].display_name == "Ada Lovelace"
    assert message["From"].addresses[0].display_name == "Coding Club"
    assert message["Reply-To"].addresses[0].addr_spec == "london@example.org"
    assert message["Message-ID"] == "<bidden.7.invite.3.Student@example.org>"
    assert message["X-Bidden-Delivery"] == "7/invite/3/Student"
    assert message["List-Unsubscribe"] == f"<{BASE}/unsubscribe/abcDEF-_0123456789abcd>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime == AT


@pytest.mark.parametrize(
    ("kind", "role", "expected"),
    [
        (EventKind.WORKSHOP, Role.STUDENT, "Workshop Invitation Wednesday 3 July 2030, 18:30"),
        (EventKind.WORKSHOP, Role.COACH, "Workshop Coach Invitation Wednesday 3 July 2030, 18:30"),
        (EventKind.VIRTUAL_WORKSHOP, Role.STUDENT, "Virtual Workshop Invitation Wednesday 3 July 2030, 18:30"),
        (EventKind.VIRTUAL_WORKSHOP, Role.COACH, "Virtual Workshop Coach Invitation Wednesday 3 July 2030, 18:30"),
        (EventKind.EVENT, Role.STUDENT, "Invitation: Été: Ruby & Rails"),
        (EventKind.EVENT, Role.COACH, "Coach Invitation: Été: Ruby & Rails"),
    ],
)
def test_subject(kind: EventKind, role: Role, expected: str) -> None:
    """A workshop's subject says its date in its own time zone, an event's its name."""
    details = event(kind=kind, name="Été: Ruby & Rails")
    assert parsed(composed(details, role=role))["Subject"] == expected
    assert CompiledTemplate(details, role, MAIL_FROM, BASE).subject == expected


@pytest.mark.parametrize("subtype", ["plain", "html"])
@pytest.mark.parametrize("kind", list(EventKind))
@pytest.mark.parametrize("role", list(Role))
def test_what_every_mail_says(subtype: str, kind: EventKind, role: Role) -> None:
    """Both parts of every kind hold all that the reader needs to decide, answer, ask and leave."""
    text = part(composed(event(kind=kind), role=role), subtype)
    for expected in (
        "Ada",
        "London",
        "Summer workshop",
        "Wednesday 3 July 2030, 18:30 to 21:00 BST",
        "Europe/London, UTC+01:00",
        "Acme",
        "1 High Street, London",
        f"{BASE}/invitation/abcDEF-_0123456789abcd",
        f"{BASE}/unsubscribe/abcDEF-_0123456789abcd",
        "london@example.org",
        "Bring a laptop.",
        f"as a {role.value.lower()}",
    ):
        assert expected in text
    assert not re.search("today|tomorrow", text, re.IGNORECASE)


def test_description_keeps_its_paragraphs_and_is_escaped() -> None:
    """Plain text stays plain: markup is shown and not obeyed, blank lines part paragraphs."""
    mail = composed(event(description="one <script>x</script>\r\ntwo\r\n\r\n\r\nthree & 4 = 5"))
    assert "one <script>x</script>\ntwo\n\nthree & 4 = 5\n" in part(mail, "plain")
    html = part(mail, "html")
    assert "one &lt;script&gt;x&lt;/script&gt;<br>\ntwo\n</p>" in html
    assert "three &amp; 4 = 5" in html
    assert "<script" not in html


def test_html_is_made_for_all_readers() -> None:
    """The HTML names its language and character set, and fits light and dark."""
    html = part(composed(), "html")
    assert '<html lang="en"' in html
    assert '<meta charset="utf-8">' in html
    assert "prefers-color-scheme: dark" in html
    assert "<title>Workshop Invitation" in html
    assert "<img" not in html


def test_absent_things_are_left_out() -> None:
    """No host, no description and an unusable chapter address leave no holes."""
    mail = composed(
        event(
            kind=EventKind.VIRTUAL_WORKSHOP,
            host_name=None,
            host_address=None,
            description=None,
            chapter_email="not an address",
        )
    )
    assert "Reply-To" not in parsed(mail)
    assert "Where: online" in part(mail, "plain")
    assert "None" not in part(mail, "plain") + part(mail, "html")
    assert "Where" not in part(composed(event(host_name=None, host_address=None)), "plain")


def test_several_chapters_and_zones() -> None:
    """An event of several chapters names them all; its own zone is used, a half-hour one too."""
    text = part(composed(event(chapter_names=("London", "Berlin", "Paris"), time_zone="Asia/Kolkata")), "plain")
    assert "London, Berlin and Paris" in text
    assert "23:00 to Thursday 4 July 2030, 01:30 IST" in text
    assert "Asia/Kolkata, UTC+05:30" in text


@pytest.mark.parametrize(
    "name",
    [
        'Robert "Bob" Tables',
        "O'Brien, Pat",
        "back\\slash",
        "Renée Ångström",
        "李 小龙",
        "שלום עולם",
        "محمد\u200cرضا",  # noqa: RUF001
        "👩‍💻 Dev",
        "=?utf-8?q?evil?=",
        "two  spaces",
        "a@b.c <x@y.z>",
        "(comment)",
        "x" * 3000,
        "é" * 3000,
        "word " * 300 + "end",
        "semi; colon: .dot",
        "From here",
        ".leading",
    ],
)
def test_name_arrives_whole(name: str) -> None:
    """`To` and the greeting carry the whole name, whatever it is made of."""
    mail = composed(to=recipient(name, None))
    assert addressed(mail) == (name, "ada@example.org")
    assert f"Hello {name},\n" in part(mail, "plain")


def test_nobody_injects_a_header() -> None:
    """CR, LF and other control characters of a name are spaces: no header, no second recipient."""
    name = 'Eve\r\nBcc: all@example.org\r\n\r\n<b>body</b>\x00\x0b\x85\u2028"'
    mail = composed(to=recipient(name, "\nSur\rname"))
    message = parsed(mail)
    assert sorted(message.keys()) == sorted(HEADERS)
    assert len(message["To"].addresses) == 1
    assert addressed(mail)[0] == 'Eve Bcc: all@example.org <b>body</b> " Sur name'
    assert "&lt;b&gt;body" in part(mail, "html")


@pytest.mark.parametrize("blank", ["", "  ", "\r\n", "\x00"])
def test_nameless_member(blank: str) -> None:
    """Without a name there is a bare address and a friendly greeting; a surname alone is used."""
    mail = composed(to=recipient(blank, None))
    assert parsed(mail)["To"] == "ada@example.org" or parsed(mail)["To"] == "<ada@example.org>"
    assert "Hello there," in part(mail, "plain")
    assert "Hello Lovelace," in part(composed(to=recipient(blank, "Lovelace")), "plain")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nobody",
        "@example.org",
        "a@",
        "a b@example.org",
        "a@exa mple.org",
        "a@example.org\r\nRCPT TO:<b@example.org>",
        "a@example.org\n",
        "<a@example.org>",
        "a@example.org> NOTIFY=NEVER",
        "a,b@example.org",
        "a@b@example.org",
        "a\x00@example.org",
        "a\u2028b@example.org",
        "a\u00a0b@example.org",
        "a\ud800b@example.org",
        "a@-example.org",
        "a@example..org",
        "a@.org",
        "x" * 250 + "@example.org",
        'a"b@example.org',
        '"a b"@example.org',
    ],
)
def test_unmailable_address_is_a_value(address: str) -> None:
    """FM-04: an address that cannot be written to is this member's failure, as a value with a reason."""
    outcome = CompiledTemplate(event(), Role.STUDENT, MAIL_FROM, BASE).compose(recipient(address=address), KEY, AT)
    assert isinstance(outcome, Unmailable)
    assert outcome.reason
    assert "\n" not in outcome.reason


@pytest.mark.parametrize(
    ("address", "needs_utf8"),
    [
        ("ada@example.org", False),
        ("ada.l+tag@sub.example.co.uk", False),
        ("o'brien@example.org", False),
        ("dots..twice@example.org", False),
        ('"a,b"@example.org', False),
        ("a@[127.0.0.1]", False),
        ("münchen@example.org", True),
        ("ada@bücher.example", True),
        ("用户@例子.广告", True),
    ],
)
def test_unusual_addresses_are_kept(address: str, needs_utf8: bool) -> None:
    """Every real address is mailed as it is; beyond ASCII it needs SMTPUTF8."""
    mail = composed(to=recipient(address=address))
    assert mail.recipient == address
    assert mail.needs_utf8 is needs_utf8
    assert mail.data.isascii() is not needs_utf8
    assert f"<{address}>\r\n" in mail.data.decode()


def test_token_that_is_no_token() -> None:
    """A token with odd characters is percent-encoded in links; one that fits in no link is unmailable."""
    odd = composed(to=recipient(token='a/b?c"<é>\r\n'))
    assert parsed(odd)["List-Unsubscribe"] == f"<{BASE}/unsubscribe/a%2Fb%3Fc%22%3C%C3%A9%3E>"
    assert f"{BASE}/invitation/a%2Fb%3Fc%22%3C%C3%A9%3E\n" in part(odd, "plain")
    template = CompiledTemplate(event(), Role.STUDENT, MAIL_FROM, BASE)
    assert isinstance(template.compose(recipient(token="x" * 2000), KEY, AT), Unmailable)
    assert isinstance(template.compose(recipient(token=""), KEY, AT), Unmailable)
    long = composed(to=recipient(token="x" * 800))
    assert f"{BASE}/invitation/{'x' * 800}\n" in part(long, "plain")


def test_forms_of_mail_from() -> None:
    """`Name <address>`, `address`, and a name beyond ASCII or with commas."""
    assert parse_sender("hello@example.org") == ("", "hello@example.org")
    assert parse_sender('"Club, The" <hello@example.org>') == ("Club, The", "hello@example.org")
    mail = CompiledTemplate(event(), Role.STUDENT, "Café <hello@example.org>", BASE).compose(recipient(), KEY, AT)
    assert isinstance(mail, Envelope)
    assert mail.sender == "hello@example.org"
    assert parsed(mail)["From"].addresses[0].display_name == "Café"


def test_same_arguments_same_bytes() -> None:
    """Composing is a function of its arguments; the time is one, in whatever zone."""
    template = CompiledTemplate(event(), Role.STUDENT, MAIL_FROM, f"{BASE}/")
    first = template.compose(recipient(), KEY, AT)
    other = template.compose(recipient("Other"), KEY, AT + timedelta(hours=1))
    assert isinstance(other, Envelope)
    assert b"Date: Sat, 01 Jun 2030 13:00:00 +0000\r\n" in other.data
    assert template.compose(recipient(), KEY, AT) == first == composed()
    assert template.compose(recipient(), KEY, AT.astimezone(timezone(timedelta(hours=2)))) == first


def test_no_description_forges_a_placeholder() -> None:
    """Text of an event that looks like a placeholder or a boundary is only text."""
    trap = "\0name\0 \x00rsvp\x00 {{ name }} --=_bidden\n--=_bidden--\n%s {0}"
    mail = composed(event(description=trap, name=trap))
    assert part(mail, "plain").count("Ada") == 1
    assert part(mail, "html").count("Ada") == 1
    assert "{{ name }} --=_bidden\n--=_bidden--\n%s {0}" in part(mail, "plain")


texts = st.text(max_size=120)
anything = st.text(st.characters(), max_size=60)  # surrogates too


@settings(max_examples=300)
@given(anything, st.none() | anything, texts, st.none() | texts, texts, st.none() | texts)
@example("\x85", "\u2029", "\x1c", "\x00", "\ufeff", "\n")
@example("a" * 61 + "=", "b" * 100, "=" * 100, "=\n" * 50, "é" * 100, None)
def test_whatever_the_directory_holds(
    name: str, surname: str | None, title: str, description: str | None, chapter: str, host: str | None
) -> None:
    """Any text in any field: the same headers, two parts, legal lines, and the name whole."""
    details = event(kind=EventKind.EVENT, name=title, description=description, chapter_names=(chapter,), host_name=host)
    mail = composed(details, recipient(name, surname))
    assert mail.data.isascii()
    assert b"\0" not in mail.data
    lines = mail.data.split(b"\r\n")
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    assert max(map(len, lines)) <= 998
    assert max(map(len, lines[lines.index(b"") :])) <= 76

    message = parsed(mail)
    assert sorted(message.keys()) == sorted(HEADERS)
    parts = list(message.walk())
    assert [each.get_content_type() for each in parts] == ["multipart/alternative", "text/plain", "text/html"]
    assert not any(each.defects for each in parts)
    whole = " ".join(filter(None, (one_line(name), one_line(surname or ""))))
    assert len(message["To"].addresses) == 1
    assert addressed(mail) == (whole, "ada@example.org")
    assert message["Subject"] == f"Invitation: {one_line(title)}".rstrip()
    first = one_line(name) or one_line(surname or "") or "there"
    assert part(mail, "plain").startswith(f"Hello {first},\n")


@settings(max_examples=500)
@given(st.emails() | st.text(max_size=40) | st.from_regex(r"[^@]{1,10}@[^@]{1,10}", fullmatch=True))
def test_any_address_is_mailed_exactly_or_refused(address: str) -> None:
    """What is composed goes to exactly this address, in one To header with one mailbox."""
    outcome = CompiledTemplate(event(), Role.STUDENT, MAIL_FROM, BASE).compose(recipient(address=address), KEY, AT)
    if isinstance(outcome, Unmailable):
        return
    assert outcome.recipient == address
    assert not re.search(r"[\s<>\x00-\x1f]", address)
    assert outcome.needs_utf8 is not address.isascii()
    message = parsed(outcome)
    assert sorted(message.keys()) == sorted(HEADERS)
    assert len(message["To"].addresses) == 1
    assert max(map(len, outcome.data.split(b"\r\n"))) <= 998


def test_composing_is_fast() -> None:
    """Splicing, not rendering: thousands of mails take far less than rendering them would."""
    template = CompiledTemplate(event(), Role.STUDENT, MAIL_FROM, BASE)
    to = recipient()
    began = time.process_time()
    for _ in range(5000):
        template.compose(to, KEY, AT)
    # Some 0.03 s here; a message object for each would take 15 s, a rendering for each 0.6 s.
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("long", ["", "x" * 400])
@pytest.mark.parametrize(
    ("pattern", "link"),
    [
        ("https://a.example/rsvp/{token}", "https://a.example/rsvp/t0ken"),
        (
            "https://a.example/{token}/go?from=mail&lang=en&copy=1",
            "https://a.example/t0ken/go?from=mail&lang=en&copy=1",
        ),
        ("https://a.example/?a=%20&t={token}#form", "https://a.example/?a=%20&t=t0ken#form"),
    ],
)
def test_answers_on_a_page_of_the_organisation(pattern: str, link: str, long: str) -> None:
    """Both parts link to the pattern with the member's token, however long; the link to leave stays ours."""
    details = event(rsvp_url=pattern.replace("example/", f"example/{long}", 1))
    mail = composed(details, recipient(token="t0ken"))
    wanted = link.replace("example/", f"example/{long}", 1)
    assert wanted in part(mail, "plain").splitlines()
    shown = part(mail, "html")
    assert f'href="{html.escape(wanted)}"' in shown
    assert shown.count(html.escape(wanted)) == 2
    assert f"{BASE}/invitation/" not in part(mail, "plain") + shown
    assert f"{BASE}/unsubscribe/t0ken" in part(mail, "plain")
    assert parsed(mail)["List-Unsubscribe"] == f"<{BASE}/unsubscribe/t0ken>"
    assert max(map(len, mail.data.partition(b"\r\n\r\n")[2].splitlines())) <= 76
