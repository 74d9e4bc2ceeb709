"""Dead letters on the site, on a real Kafka: listed, shown to the byte, redriven."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from config.kafka import client_config
from config.settings import Settings
from embedded import ports
from producers import redrive as redriving
from producers.dead_letters import DeadLetter, DeadLetterReader
from schemas.errors import UnreachableError
from tests.acceptance.processes import eventually
from tests.integration.scenario import Scenario
from tests.integration.site import Browser, Site, open_site, page_text

POISON = b"\xff\x00\xfe no JSON <script>\r\n\xe2\x82\xac"


@pytest.fixture
def site(scenario: Scenario, settings: Settings, database_url: str) -> Iterator[Site]:
    """A site with Kafka, without a directory."""
    kafka = {name: getattr(settings, name) for name in ("kafka_bootstrap", "topic_prefix", "group")}
    with open_site(database_url, scenario.conn, **kafka) as site:
        yield site


def produce_dead_letters(
    settings: Settings, *letters: tuple[bytes | None, bytes | None], topic: str | None = None
) -> None:
    """Dead letters as a worker produces them."""
    producer = Producer({**client_config(settings, "test"), "message.max.bytes": 2_000_000}, logger=None)
    for number, (key, value) in enumerate(letters):
        headers: list[tuple[str, str | bytes | None]] = [
            ("bidden-reason", b"not JSON: <b>unexpected</b> byte"),
            ("bidden-topic", (topic or settings.invitations_topic).encode()),
            ("bidden-partition", b"3"),
            ("bidden-offset", str(100 + number).encode()),
            ("bidden-time", b"2026-04-09T18:30:00+00:00"),
        ]
        producer.produce(settings.dead_letter_topic, value, key, headers=headers)
    assert producer.flush(30) == 0


def consume_invitations(settings: Settings, count: int) -> list[Message]:
    """The first messages on the invitations topic."""
    consumer = Consumer(client_config(settings, "test") | {"group.id": "test-source"}, logger=None)
    found: list[Message] = []
    try:
        consumer.assign([TopicPartition(settings.invitations_topic, p, 0) for p in range(settings.partitions)])

        def complete() -> bool:
            found.extend(message for message in consumer.consume(count, 0.2) if message.error() is None)
            return len(found) >= count

        eventually(complete, f"{count} messages")
    finally:
        consumer.close()
    return found


def redrive(browser: Browser, letters: Sequence[str] = (), **fields: str) -> str:
    """Redrive; returns the text of the page after it."""
    answer = browser.post("/letters/redrive", {"letter": list(letters), **fields})
    assert answer.status_code == 303, page_text(answer)
    return page_text(browser.get(answer.headers["location"]))


def test_shown_to_the_byte(site: Site, settings: Settings) -> None:
    """The list has reason, source and key; the page of one its headers and bytes, as text and in hexadecimal."""
    browser = site.admin()
    assert "There are no dead letters." in page_text(browser.get("/letters"))
    produce_dead_letters(settings, (b"\x01\xff", POISON), (None, None))
    page = browser.get("/letters")
    text = page_text(page)
    assert "2 are waiting" in text
    assert "not JSON: &lt;b&gt;unexpected&lt;/b&gt; byte" in text
    assert f"{settings.invitations_topic} 3:100" in text
    assert "9 April 2026, 18:30 UTC" in text
    assert text.index("0:1 ") < text.index("0:0 ")
    assert not re.search(r"<[^>]*\s(style|on\w+)=", page.text)
    letter = browser.get("/letters/0/0")
    assert r"\xff\x00\xfe no JSON &lt;script&gt;\r" in letter.text
    assert "€" in letter.text
    assert "00000000  ff 00 fe 20 6e 6f 20 4a 53 4f 4e 20 3c 73 63 72  ... no JSON &lt;scr" in letter.text
    assert r"<code>\x01\xff</code>" in letter.text
    assert "bidden-offset 100" in page_text(letter)
    raw = browser.get("/letters/0/0/value")
    assert raw.content == POISON
    assert raw.headers["content-type"] == "application/octet-stream"
    assert raw.headers["content-disposition"].startswith("attachment")
    assert "no value" in page_text(browser.get("/letters/0/1"))
    for path in ("/letters/0/1/value", "/letters/0/2", "/letters/7/0", "/letters/x/0", f"/letters/0/{2**63}"):
        assert browser.get(path).status_code == 404


def test_redrive(site: Site, settings: Settings, scenario: Scenario) -> None:
    """The original key and bytes are on the source topic again; a second time only with `again`; it is audited."""
    browser = site.admin()
    produce_dead_letters(settings, (b"7", POISON), (b"8", b"second"), (None, b"third"))
    assert "1 dead letter redriven" in redrive(browser, ["0:0"])
    (message,) = consume_invitations(settings, 1)
    assert (message.key(), message.value()) == (b"7", POISON)
    assert "2 are waiting" in page_text(browser.get("/letters"))
    assert "0 dead letters redriven; 1 skipped: redriven before" in redrive(browser, ["0:0"])
    assert "1 dead letter redriven" in redrive(browser, ["0:0"], again="true")
    assert "2 dead letters redriven; 1 skipped: redriven before" in redrive(browser, all="true")
    found = consume_invitations(settings, 4)
    assert sorted((m.key() or b"", m.value() or b"") for m in found) == [
        (b"", b"third"), (b"7", POISON), (b"7", POISON), (b"8", b"second")
    ]  # fmt: skip
    assert "None is waiting." in page_text(browser.get("/letters"))
    assert "2 dead letters redriven" in redrive(browser, ["0:1", "0:2"], again="true")
    trail = scenario.execute("SELECT action, detail, outcome FROM audit_log ORDER BY id")
    assert {row["action"] for row in trail} == {"redrive"}
    assert [row["outcome"] for row in trail] == ["done", "nothing", "done", "done", "done"]
    assert [row["detail"] for row in trail][2:4] == [
        "0:0, again; 1 dead letter redriven",
        "all; 2 dead letters redriven; 1 skipped: redriven before",
    ]


def test_kafka_goes_away_half_way(
    site: Site, settings: Settings, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit log says how many were redriven by then."""
    produce_dead_letters(settings, (b"7", b"first"), (b"8", b"second"), (b"9", b"third"))
    letters = DeadLetterReader.read_all

    def some(reader: DeadLetterReader) -> Iterator[DeadLetter]:
        yield from islice(letters(reader), 2)
        raise UnreachableError("Kafka did not give what it holds")

    monkeypatch.setattr(redriving, "_CHUNK", 1)
    monkeypatch.setattr(DeadLetterReader, "read_all", some)
    assert site.admin().post("/letters/redrive", {"all": "true"}).status_code == 503
    (entry,) = scenario.execute("SELECT outcome, detail FROM audit_log")
    detail = "all; 2 dead letters redriven before the error; Kafka did not give what it holds"
    assert entry == {"outcome": "failed", "detail": detail}
    assert len(consume_invitations(settings, 2)) == 2


def test_from_elsewhere(site: Site, settings: Settings) -> None:
    """A forged header cannot make an admin produce to another topic."""
    browser = site.admin()
    produce_dead_letters(settings, (b"7", b"x"), topic="elsewhere")
    assert "cannot be redriven from here" in page_text(browser.get("/letters/0/0"))
    answer = browser.post("/letters/redrive", {"letter": "0:0"})
    assert answer.status_code == 409
    assert "came from &#39;elsewhere&#39;" in page_text(answer)
    assert "0 dead letters redriven; 1 skipped: from another topic" in redrive(browser, all="true")


def test_invalid_requests(site: Site, settings: Settings) -> None:
    """Nothing selected, an invalid place, and a place that does not exist."""
    browser = site.admin()
    assert "Select dead letters first" in page_text(browser.post("/letters/redrive"))
    assert browser.post("/letters/redrive", {"letter": "0"}).status_code == 422
    assert browser.post("/letters/redrive", {"letter": "0:9"}).status_code == 404
    assert browser.get("/letters?before=x").status_code == 422


def test_pages(site: Site, settings: Settings) -> None:
    """Fifty to a page, newest first, each dead letter once."""
    browser = site.admin()
    produce_dead_letters(settings, *((b"1", b"x") for _ in range(120)))
    seen: list[int] = []
    path = "/letters"
    while path:
        page = browser.get(path)
        seen += [int(offset) for offset in re.findall(r'name="letter" value="0:(\d+)"', page.text)]
        found = re.findall(r'href="(/letters\?before=[^"]+)"', page.text)
        path = found[0] if found else ""
    assert seen == list(range(119, -1, -1))


def test_a_long_value(site: Site, settings: Settings) -> None:
    """The page shows only the beginning, and offers the whole for download."""
    browser = site.admin()
    produce_dead_letters(settings, (b"1", b"y" * 700_000))
    page = browser.get("/letters/0/0")
    assert "700,000 bytes, of which the first 65,536 are shown" in page_text(page)
    assert len(page.text) < 500_000
    assert browser.get("/letters/0/0/value").content == b"y" * 700_000


def test_kafka_away(scenario: Scenario, database_url: str) -> None:
    """The pages say so, within seconds; without a setting for Kafka they name it."""
    port = ports.choose({"kafka": None}, {})["kafka"]
    with open_site(database_url, scenario.conn, kafka_bootstrap=f"127.0.0.1:{port}") as site:
        browser = site.admin()
        began = time.monotonic()
        for answer in (
            browser.get("/letters"),
            browser.get("/letters/0/0"),
            browser.post("/letters/redrive", {"all": "true"}),
        ):
            assert answer.status_code == 503
            assert f"Kafka cannot be reached at 127.0.0.1:{port}" in page_text(answer)
        assert time.monotonic() - began < 30
    with open_site(database_url, scenario.conn) as site:
        answer = site.browser(1).get("/letters")
        assert answer.status_code == 422
        assert "BIDDEN_KAFKA_BOOTSTRAP is not set" in page_text(answer)


def test_for_admins_only(site: Site) -> None:
    """Messages may contain anything: organisers may not see them."""
    organiser = site.organiser()
    for path in ("/letters", "/letters/0/0", "/letters/0/0/value"):
        assert organiser.get(path).status_code == 403
    assert organiser.post("/letters/redrive", {"all": "true"}).status_code == 403


def test_discarded(site: Site, settings: Settings) -> None:
    """FM-41: an admin sets letters aside for good; they are shown as discarded, and "Redrive all" leaves them."""
    produce_dead_letters(settings, (b"7", b"first"), (b"8", b"second"))
    browser = site.admin()
    answer = browser.post("/letters/discard", {"letter": ["0:0"]})
    assert answer.status_code == 303
    listed = page_text(browser.get(answer.headers["location"]))
    assert "1 dead letter discarded" in listed
    assert "1 is waiting" in listed
    assert "discarded" in page_text(browser.get("/letters/0/0"))
    assert "Discard" not in page_text(browser.get("/letters/0/0")).replace("discarded", "")
    assert "0:0 was discarded" in page_text(browser.post("/letters/redrive", {"letter": ["0:0"]}))
    assert "1 dead letter redriven; 1 skipped: discarded" in redrive(browser, all="true")
    assert "None is waiting" in page_text(browser.get("/letters"))
    assert "1 dead letter redriven" in redrive(browser, ["0:0"], again="true")
    assert browser.post("/letters/discard", {}).status_code == 422
    assert browser.post("/letters/discard", {"letter": ["0:99"]}).status_code == 404
