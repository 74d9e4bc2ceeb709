"""One normal form of an address: which spellings are one mailbox, and what no address can hold."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.directory_file import parse_lines
from schemas.envelope import Envelope
from schemas.errors import InputError
from schemas.mailboxes import ascii_address, digest, normal_form, unseen_character
from tests.integration.importing import member


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bob@example.org", "bob@EXAMPLE.ORG"),
        ("bob@example.org", '"bob"@example.org'),
        ("bob.b@example.org", '"Bob.b"@EXAMPLE.org'),
        ("ada.case@example.org", "Ada.Case@Example.org"),
        ("anna@bücher.example", "anna@XN--bcher-kva.example"),
        ("anna@bu\u0308cher.example", "anna@bücher.example"),
        ("ben@faß.example", "ben@xn--fa-hia.example"),
        ("ole@blåbær。example", "ole@xn--blbr-roah.example"),
        ("jo\u0308rg@example.org", "JÖRG@example.org"),
        ("ada@example.org\u200b", "ada@example.org"),
        ("\ufeffa\u00adda@exa\u2060mple.org", "ada@example.org"),
    ],
)
def test_spellings_of_one_mailbox(one: str, other: str) -> None:
    """Letter case, IDNA, composed letters and what nobody sees do not make another mailbox."""
    assert normal_form(one) == normal_form(other)
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ada@example.org", "ada+london@example.org"),
        ("a.da@example.org", "ada@example.org"),
        ("ben@fass.example", "ben@faß.example"),
        ("jörg@example.org", "jorg@example.org"),
    ],
)
def test_different_mailboxes(one: str, other: str) -> None:
    """Nothing else is folded: providers differ in what they make of dots and tags."""
    assert digest(one) != digest(other)


@given(st.text(max_size=60))
def test_any_text_has_one_form(text: str) -> None:
    """Older databases hold anything; a form is its own form, unless ASCII made of it says more."""
    form = normal_form(f"{text}@example.org")
    assert normal_form(form) == form
    assert len(digest(text)) == 32


@pytest.mark.parametrize("place", ["{}ada@example.org", "a{}da@example.org", "ada@exam{}ple.org", "ada@example.org{}"])
@pytest.mark.parametrize(
    "code", [0x200B, 0xFEFF, 0x202A, 0x2060, 0xAD, 0xFFFD, 0x200D, 0x180E, 0x3164, 0xFE0F, 0xE0101]
)
def test_what_cannot_be_seen_is_refused_by_line_and_field(code: int, place: str) -> None:
    """An import names the line, the field and the character."""
    address = place.format(chr(code))
    lines = [json.dumps(member(1)).encode(), json.dumps(member(2, email=address)).encode()]
    with pytest.raises(InputError) as caught:
        list(parse_lines(lines))
    assert (caught.value.line, caught.value.field) == (2, "email")
    assert f"U+{code:04X}" in caught.value.detail
    assert address not in caught.value.detail


@pytest.mark.parametrize("address", ["jörg.ł@example.org", "ole@blåbær.example", "用户@例子.example", "o'b+a@b-c.org"])
def test_what_can_be_an_address_is_accepted(address: str) -> None:
    """Letters of any script are seen."""
    assert unseen_character(address) is None


def test_the_form_for_a_server_without_smtputf8() -> None:
    """The recipient's domain as A-labels, in the command and in the header; not for a local part beyond ASCII."""
    to = 'To: "Anna <anna@b>" <anna@bücher.example>\r\n'
    mail = Envelope("club@example.org", "anna@bücher.example", f"{to}\r\nbody\r\n".encode(), needs_utf8=True).in_ascii()
    assert mail is not None
    assert (mail.recipient, mail.needs_utf8) == ("anna@xn--bcher-kva.example", False)
    assert mail.data == b'To: "Anna <anna@b>" <anna@xn--bcher-kva.example>\r\n\r\nbody\r\n'
    assert Envelope("club@example.org", "jörg@example.org", b"", needs_utf8=True).in_ascii() is None
    assert ascii_address("x@☕.example") is None
