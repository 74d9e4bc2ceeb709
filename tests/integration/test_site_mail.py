"""The preview of a mail on the site, and the test mail to the user."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import ExitStack
from email import message_from_bytes
from email.policy import default

import pytest

from embedded import ports
from embedded.mail_server import MailServer
from tests.integration.importing import EVENT
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site, page_text
from web import own_mail


@pytest.fixture
def invited(scenario: Scenario) -> Scenario:
    """A workshop of chapter 1, event 1, whose description contains HTML."""
    return scenario.build(students=[1], coaches=[2], description="<script>alert(1)</script> & more")


@pytest.fixture
def site(invited: Scenario, database_url: str, mail_sink: MailServer) -> Iterator[Site]:
    """A site with a mail server."""
    with open_site(database_url, invited.conn, smtp_url=mail_sink.url) as site:
        yield site


def test_preview(site: Site) -> None:
    """Subject, sender, Reply-To and both parts, with the user's name and example links."""
    browser = site.organiser(1)
    page = browser.get("/events/1/mail/Coach")
    assert page.status_code == 200
    text = page_text(page)
    assert "Subject Workshop Coach Invitation Monday 9 April 2096" in text
    assert "From Invitations &lt;invitations@bidden.example&gt;" in text
    assert "Reply to London &lt;london@example.org&gt;" in text
    assert "members on the list Coaches of London" in text
    assert "Hello Olga," in text
    assert "http://testserver/invitation/this-is-an-example" in text
    assert "script>alert" not in page.text
    (source,) = re.findall(r'<iframe class="mail" src="([^"]+)" title="[^"]+"', page.text)
    assert source == "/events/1/mail/Coach/html"
    assert not re.search(r"<[^>]*\s(style|on\w+)=", page.text)


def test_preview_of_answers_elsewhere(site: Site, invited: Scenario) -> None:
    """The links of both parts are those that will be mailed, and the event's page says where members answer."""
    invited.load(EVENT | {"rsvp_url": "https://a.example/{token}?a=1&b=2"})
    browser = site.organiser(1)
    assert "https://a.example/this-is-an-example?a=1&amp;b=2" in browser.get("/events/1/mail/Coach").text
    frame = browser.get("/events/1/mail/Coach/html").text
    assert 'href="https://a.example/this-is-an-example?a=1&amp;b=2"' in frame
    assert "/invitation/" not in frame
    assert "Members answer at https://a.example/{token}?a=1&amp;b=2" in page_text(browser.get("/events/1"))


def test_frame(site: Site) -> None:
    """The HTML part as members get it, sandboxed, and framed only by our own pages."""
    browser = site.organiser(1)
    part = browser.get("/events/1/mail/Student/html")
    assert part.status_code == 200
    assert "Hello <bdi>Olga</bdi>" in part.text
    assert 'class="button" style="display:inline-block' in part.text
    assert html.escape("<script>") in part.text
    policy = dict(rule.strip().partition(" ")[::2] for rule in part.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'self'"
    assert policy["style-src"] == "'unsafe-inline'"
    assert policy["sandbox"] == ""
    assert "script-src" not in policy
    assert "x-frame-options" not in part.headers


def test_not_found(site: Site) -> None:
    """An unknown role, another chapter's event, or no session."""
    browser = site.organiser(1)
    for path in ("/events/1/mail/Nobody", "/events/1/mail/student", "/events/2/mail/Student"):
        assert browser.get(path).status_code == 404
    stranger = site.browser(site.account("eve@bidden.example"))
    for path in ("/events/1/mail/Student", "/events/1/mail/Student/html"):
        assert stranger.get(path).status_code == 404
    assert stranger.post("/events/1/mail/Student/test").status_code == 404
    assert site.browser().get("/events/1/mail/Student/html").headers["location"].startswith("/sign-in")


def test_test_mail(site: Site, mail_sink: MailServer, invited: Scenario) -> None:
    """It is sent to the user only, claimed as a test, and is no delivery."""
    browser = site.organiser(1)
    shown = browser.get("/events/1/mail/Student/html").text
    answer = browser.post("/events/1/mail/Student/test", {"email": "m1@example.org"})
    assert answer.status_code == 303
    assert "sent to olga@bidden.example" in page_text(browser.get(answer.headers["location"]))
    (mail,) = mail_sink.mails()
    assert mail.recipients == ("olga@bidden.example",)
    message = message_from_bytes(mail.data, policy=default)
    assert message["X-Bidden-Test"] == "1"
    assert message["Subject"].startswith("[Test] Workshop Invitation Monday 9 April 2096")
    assert message["To"] == "Olga <olga@bidden.example>"
    assert message["Reply-To"] == "London <london@example.org>"
    for name in ("X-Bidden-Delivery", "List-Unsubscribe", "List-Unsubscribe-Post"):
        assert name not in message
    assert sorted(name for name in message if name in ("Subject", "Message-ID")) == ["Message-ID", "Subject"]
    body = message.get_body(("html",))
    assert body is not None
    assert body.get_content().split() == shown.split()
    assert invited.execute("SELECT * FROM deliveries") == []
    trail = invited.execute("SELECT actor, action, event_id, outcome FROM audit_log")
    assert trail == [{"actor": "Olga <olga@bidden.example>", "action": "test mail", "event_id": 1, "outcome": "done"}]
    assert "Only an example" in page_text(browser.get("/invitation/this-is-an-example"))


def test_refused_test_mail(site: Site, mail_sink: MailServer, invited: Scenario) -> None:
    """The page shows the mail server's reply."""
    mail_sink.set_rules([{"do": "refuse_recipient", "recipient": "olga@*"}])
    answer = site.organiser(1).post("/events/1/mail/Student/test")
    assert answer.status_code == 422
    assert "The test mail was not sent: the mail server refused it" in page_text(answer)
    assert mail_sink.count() == 0
    assert [row["outcome"] for row in invited.execute("SELECT outcome FROM audit_log")] == ["refused"]


@pytest.mark.parametrize("smtp_url", [None, "smtp://127.0.0.1:{port}"])
def test_mail_server_away(invited: Scenario, database_url: str, smtp_url: str | None) -> None:
    """Unreachable, or not configured: the page says which, and still shows the preview."""
    port = ports.choose({"smtp": None}, {})["smtp"]
    url = smtp_url and smtp_url.format(port=port)
    with open_site(database_url, invited.conn, smtp_url=url) as site:
        browser = site.organiser(1)
        assert browser.get("/events/1/mail/Student").status_code == 200
        answer = browser.post("/events/1/mail/Student/test")
    assert answer.status_code == (503 if url else 422)
    assert (f"cannot reach mail server 127.0.0.1:{port}" if url else "BIDDEN_SMTP_URL is not set") in page_text(answer)
    assert "Hello Olga," in page_text(answer)


def test_throttled(site: Site, mail_sink: MailServer) -> None:
    """Ten within 15 minutes for each account."""
    browser, other = site.organiser(1), site.admin()
    answers = [browser.post("/events/1/mail/Student/test") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [303] * 10 + [429]
    assert "Wait " in page_text(answers[-1])
    assert mail_sink.count() == 10
    assert other.post("/events/1/mail/Student/test").status_code == 303


def test_few_at_a_time(site: Site, mail_sink: MailServer) -> None:
    """A slow mail server cannot use up the database connections."""
    browser = site.organiser(1)
    with ExitStack() as others:
        for _ in range(3):
            others.enter_context(own_mail.turn())
        answer = browser.post("/events/1/mail/Student/test")
    assert (answer.status_code, "other mails are waiting for the mail server" in page_text(answer)) == (503, True)
    assert mail_sink.count() == 0
    assert browser.post("/events/1/mail/Student/test").status_code == 303


def test_needs_a_csrf_token(site: Site, mail_sink: MailServer) -> None:
    """A form of another site sends no mail."""
    browser = site.organiser(1)
    assert browser.client.post("/events/1/mail/Student/test").status_code == 403
    assert mail_sink.count() == 0
