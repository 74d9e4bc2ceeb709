"""The setting BIDDEN_SMTP_URL: what it may say, and that it never gives its secrets away."""

from __future__ import annotations

import traceback

import pytest

from config.addresses import is_loopback
from mail.smtp.sender import SmtpSender
from mail.smtp.url import SmtpServer, Tls, parse
from schemas.errors import SettingsError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.test", SmtpServer("mail.test", 25)),
        ("smtp://mail.test:2525/", SmtpServer("mail.test", 2525)),
        ("smtps://mail.test", SmtpServer("mail.test", 465, Tls.IMPLICIT)),
        ("smtp://[::1]:25", SmtpServer("::1", 25)),
        ("smtp://mail.test?starttls=required", SmtpServer("mail.test", 25, Tls.STARTTLS)),
        ("smtp://mail.test?starttls=TRUE", SmtpServer("mail.test", 25, Tls.STARTTLS)),
        ("smtp://mail.test?starttls=", SmtpServer("mail.test", 25, Tls.STARTTLS)),
        ("smtp://mail.test?starttls=optional", SmtpServer("mail.test", 25, Tls.OPTIONAL)),
        ("smtp://mail.test?starttls=false", SmtpServer("mail.test", 25)),
        ("smtp://mail.test?ca_file=/a%20b/ca.pem", SmtpServer("mail.test", 25, ca_file="/a b/ca.pem")),
        ("smtp://ada:p%40ss%2Fw@127.0.0.1", SmtpServer("127.0.0.1", 25, user="ada", password="p@ss/w")),
        (
            "smtp://a%40b.c:x@mail.test:587?starttls=true",
            SmtpServer("mail.test", 587, Tls.STARTTLS, "a@b.c", "x"),
        ),
        (
            "smtp://a:x@mail.test?clear_password=allowed",
            SmtpServer("mail.test", 25, user="a", password="x", clear_password=True),
        ),
    ],
)
def test_what_it_may_say(url: str, expected: SmtpServer) -> None:
    """Host, port, TLS, user and password, the last two percent-decoded."""
    assert parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.test:25",
        "http://user:sesame@mail.test",
        "smtp://",
        "smtp://user:sesame@",
        "smtp://user:sesame@mail.test:port",
        "smtp://user:sesame@mail.test:99999",
        "smtp://user:sesame@mail.test:0",
        "smtp://user:ses/ame@mail.test",
        "smtp://user:ses#ame@mail.test",
        "smtp://user:sesame@[::1",
        "smtp://user:sesame@mail.test",
        "smtp://user:sesame@192.0.2.1",
        "smtp://user@mail.test?starttls=true",
        "smtp://:sesame@mail.test?starttls=true",
        "smtp://user:sesame@mail.test?starttls=maybe",
        "smtp://user:sesame@mail.test?tls=true",
        "smtp://user:sesame@mail.test?starttls=true&starttls=false",
        "smtps://user:sesame@mail.test?starttls=true",
        "smtp://user:sesame@mail.test?clear_password=yes",
        "smtp://user:sesame%00@mail.test?starttls=true",
        "smtp://user:sesame@mail.test\r\n",
        "smtp://user:sesame@mail test",
    ],
)
def test_what_makes_no_sense(url: str) -> None:
    """Refused by the setting's name; neither the message nor its causes hold the password."""
    with pytest.raises(SettingsError) as caught:
        parse(url)
    assert caught.value.field == "BIDDEN_SMTP_URL"
    assert str(caught.value).startswith("BIDDEN_SMTP_URL ")
    cause: BaseException | None = caught.value
    while cause is not None:
        assert "sesame" not in str(cause)
        assert "ses/ame" not in str(cause)
        cause = cause.__cause__ or cause.__context__
    assert "ame@" not in "".join(line for line in traceback.format_exception_only(caught.value) if "parse(" not in line)


def test_secrets_are_not_shown() -> None:
    """Neither a server's repr nor a sender's holds the user or the password."""
    url = "smtp://token-user:sesame@127.0.0.1:2525"
    for shown in (repr(parse(url)), repr(SmtpSender(url)), parse(url).address):
        assert "sesame" not in shown
        assert "token-user" not in shown
    assert parse("smtp://[::1]:26").address == "[::1]:26"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("mail.test", False),
        ("10.0.0.1", False),
        ("localhost.evil.test", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    """Only this machine itself may be told a password in the clear without being asked."""
    assert is_loopback(host) is expected


def test_missing_ca_file() -> None:
    """An unreadable file of authorities is refused at start, by the setting's name."""
    with pytest.raises(SettingsError) as caught:
        SmtpSender("smtps://ada:sesame@mail.test?ca_file=/nonexistent/ca.pem")
    assert caught.value.field == "BIDDEN_SMTP_URL"
    assert "sesame" not in str(caught.value)
