"""The links of an accepted mail, opened in the real application."""

from __future__ import annotations

import email
import re
import signal
from email.message import EmailMessage
from email.policy import default

import httpx2 as httpx
import pytest

from embedded import ports
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, eventually

pytestmark = pytest.mark.slow


def mail_to(books: Books, member: int) -> EmailMessage:
    """The mail that a member got."""
    for stored in books.sink.mails():
        found = email.message_from_bytes(stored.data, policy=default)
        if str(found["X-Bidden-Delivery"]).split("/")[2] == str(member):
            assert isinstance(found, EmailMessage)
            return found
    raise AssertionError(f"member {member} has no mail")


def test_the_links_of_a_mail(bidden: Bidden, books: Books) -> None:
    """FM-25: one member declines and one unsubscribes by their mail's links: `why` says so, the second gets no more."""
    port = ports.choose({"web": None}, {})["web"]
    base = {"BIDDEN_BASE_URL": f"http://127.0.0.1:{port}"}
    bidden.import_lines(*directory(range(1, 4), events=2))
    site = bidden.start("admin", "--port", str(port), "--json", **base)
    worker = bidden.worker(**base)
    bidden.invite("students", "--wait")
    eventually(lambda: bool(site.logged("the web application is up")), "the application is up")

    body = mail_to(books, 1).get_body(("plain",))
    assert body is not None
    (rsvp,) = re.findall(rf"http://127\.0\.0\.1:{port}/invitation/\S+", body.get_content())
    assert httpx.get(rsvp).status_code == 200
    assert "You are not coming" in httpx.post(rsvp, data={"answer": "no"}, follow_redirects=True).text
    unsubscribe = mail_to(books, 2)
    assert unsubscribe["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    done = httpx.post(str(unsubscribe["List-Unsubscribe"]).strip("<>"), data={"List-Unsubscribe": "One-Click"})
    assert (done.status_code, done.text) == (200, "unsubscribed\n")

    assert bidden.invite("students", "--wait", event=2)["planned"] == 2
    assert books.mails(event=2).keys() == {(1, "Student"), (3, "Student")}
    assert bidden.run("why", "1", "1", "--json").json["reasons"] == ["declined"]
    assert bidden.run("why", "2", "2", "--json").json["reasons"] == ["not_subscribed"]
    token = rsvp.rpartition("/")[2]
    for process in (site, worker):
        process.signal(signal.SIGTERM)
        assert process.end() == 0, process.log_tail()
        assert token not in process.err.read_text() + process.out.read_text()


def test_a_port_in_use(bidden: Bidden) -> None:
    """FM-32: a server that cannot listen says so, and ends."""
    port = ports.choose({"web": None}, {})["web"]
    first = bidden.start("admin", "--port", str(port), "--json")
    eventually(lambda: bool(first.logged("the web application is up")), "the application is up")
    error = bidden.run("admin", "--port", str(port), "--json", code=2).error
    assert str(port) in error["detail"]
    assert error["field"] == "port"
