"""Senders against a mail server that misbehaves at each point of the dialogue: no outcome is ever too good.

Not accepted must mean not accepted: what NotSent and Refused report may be sent again. After the data went out
without a verdict the outcome is Ambiguous.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mail.sender import send
from schemas.send_results import Accepted
from tests.conformance.sender_harness import (
    Run,
    ambiguous,
    at,
    each_way,
    in_each_loop,
    kind,
    mail,
    not_sent,
    outcome_from,
    outcomes,
    permanent,
    talking_to,
    temporary,
    throttled,
    undecided,
)
from tests.conformance.smtp_servers import (
    BODY,
    BODY_BEGINS,
    DROP,
    GREETING,
    HANG,
    TAKE_AND_DROP,
    TAKE_AND_HANG,
    Act,
    ScriptedServer,
)

pytestmark = in_each_loop

#: With PIPELINING the recipient was named already: it may be theirs.
lost_early = "not sent, or undecided with PIPELINING"


def resolved(expected: str, offers: tuple[str, ...]) -> str:
    return expected if expected != lost_early else undecided if "PIPELINING" in offers else not_sent


POINTS: list[tuple[str, Act | bytes, str]] = [
    (GREETING, DROP, not_sent),
    (GREETING, HANG, not_sent),
    (GREETING, Act(b"421 4.3.2 too busy\r\n", "drop"), not_sent),
    (GREETING, Act(b"554 5.3.2 not you\r\n", "drop"), not_sent),
    (GREETING, b"SSH-2.0-OpenSSH_9.9\r\n", not_sent),
    (GREETING, b"220 one\r\n220 two\r\n", not_sent),
    ("EHLO", DROP, not_sent),
    ("EHLO", HANG, not_sent),
    ("EHLO", Act(b"421 4.3.2 too busy\r\n", "drop"), not_sent),
    ("EHLO", b"450 4.3.2 greylisted\r\n", not_sent),
    ("EHLO", b"250-half\r\n", not_sent),
    ("MAIL", DROP, lost_early),
    ("MAIL", HANG, lost_early),
    ("MAIL", Act(b"421 4.7.0 too many\r\n", "drop"), throttled),
    ("MAIL", b"421 4.7.0 too many, and it stays open\r\n", throttled),
    ("MAIL", b"530 5.7.0 authentication required\r\n", throttled),
    ("MAIL", b"535 5.7.8 bad credentials\r\n", throttled),
    ("MAIL", b"451 4.3.0 not now\r\n", throttled),
    ("MAIL", b"452 4.3.1 disk full\r\n", throttled),
    ("MAIL", b"454 4.7.0 Throttling failure\r\n", throttled),
    ("MAIL", b"503 5.5.1 Sender already specified\r\n", throttled),
    ("MAIL", b"550 5.4.5 Daily user sending quota exceeded\r\n", throttled),
    ("MAIL", b"550 5.7.1 not from you\r\n", throttled),
    ("MAIL", b"garbage\r\n", lost_early),
    ("MAIL", b"354 what?\r\n", not_sent),
    ("RCPT", DROP, undecided),
    ("RCPT", HANG, undecided),
    ("RCPT", Act(b"421 4.7.0 too many\r\n", "drop"), undecided),
    ("RCPT", b"450 4.2.1 later\r\n", temporary),
    ("RCPT", b"454 Throttling failure: Maximum sending rate exceeded.\r\n", throttled),
    ("RCPT", b"452 4.3.1 disk full\r\n", throttled),
    ("RCPT", b"554 5.7.1 Relay access denied\r\n", undecided),
    ("RCPT", b"503 5.5.1 MAIL first\r\n", throttled),
    ("RCPT", b"550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 mailbox\r\n", permanent),
    ("RCPT", b"\xff\xfe\r\n", undecided),
    ("DATA", DROP, undecided),
    ("DATA", HANG, undecided),
    ("DATA", Act(b"421 4.3.2 shutting down\r\n", "drop"), undecided),
    ("DATA", b"451 4.3.0 no room\r\n", throttled),
    ("DATA", b"454 Throttling failure: Maximum sending rate exceeded.\r\n", throttled),
    ("DATA", b"554 5.5.0 no data\r\n", throttled),
    ("DATA", b"250 ok\r\n", not_sent),
    ("DATA", b"354 go on\r\n250 2.0.0 queued before it came\r\n", undecided),
    ("DATA", Act(b"354 go on\r\n421 4.3.2 shutting down\r\n", "drop"), undecided),
    ("DATA", Act(b"354 go on\r\n", "drop"), ambiguous),
    ("DATA", Act(b"354 go on\r\n", "hang"), ambiguous),
    (BODY_BEGINS, DROP, ambiguous),
    (BODY_BEGINS, HANG, ambiguous),
    (BODY, DROP, ambiguous),
    (BODY, HANG, ambiguous),
    (BODY, TAKE_AND_DROP, ambiguous),
    (BODY, TAKE_AND_HANG, ambiguous),
    (BODY, Act(b"25", "drop"), ambiguous),
    (BODY, Act(b"250-half of a reply\r\n", "drop"), ambiguous),
    (BODY, b"nonsense\r\n", ambiguous),
    (BODY, b"354 what?\r\n", ambiguous),
    (BODY, Act(b"421 4.3.2 shutting down\r\n", "drop"), undecided),
    (BODY, b"451 4.3.0 not now\r\n", throttled),
    (BODY, b"454 Throttling failure: Maximum sending rate exceeded.\r\n", throttled),
    (BODY, b"452 4.2.2 full\r\n", temporary),
    (BODY, b"554 5.7.1 spam\r\n", undecided),
    (BODY, b"552 5.3.4 too big\r\n", permanent),
    (BODY, b"250-2.0.0 all\r\n250 2.0.0 well\r\n", "accepted"),
    (BODY, Act(b"250 2.0.0 taken\r\n", "drop"), "accepted"),
    (BODY, b"250 2.0.0 taken\r\n421 4.3.2 bye\r\n", "accepted"),
]


def short(value: object) -> str:
    return ascii(value)[:40]


@each_way
@pytest.mark.parametrize(("point", "act", "expected"), POINTS, ids=short)
def test_outcome_of_each_point_of_failure(
    run: Run, offers: tuple[str, ...], point: str, act: Act | bytes, expected: str
) -> None:
    """FM-11, FM-12, FM-37: a refusal is whom it is about; a loss is NotSent before the sender was accepted, Undecided
    from then on, Ambiguous after the data; Accepted needs the 2xx.

    And what is reported as not accepted has not been accepted.
    """

    async def story() -> None:
        server = ScriptedServer(at(point, act), offers=offers)
        opening = point in (GREETING, "EHLO")
        async with talking_to(server, connections=1, timeout=0.2 if opening else 30) as sender:
            if opening:
                outcome = await send(sender, mail())
                sender._timeout = 30
            else:
                outcome = await outcome_from(sender, server, act, expected)
            assert kind(outcome) == resolved(expected, offers), outcome
            if expected != ambiguous:
                assert len(server.mails) == (expected == "accepted")
            # The sender lives on, and sends again as soon as the server is well.
            server.script = lambda point, connection, mail: None
            assert isinstance(await send(sender, mail("next@example.org")), Accepted)
            assert server.mails[-1].recipients == ("next@example.org",)

    run(story())


@each_way
@pytest.mark.parametrize(
    ("point", "act", "expected"), [each for each in POINTS if each[0] not in (GREETING, "EHLO")], ids=short
)
def test_the_same_on_a_kept_connection(
    run: Run, offers: tuple[str, ...], point: str, act: Act | bytes, expected: str
) -> None:
    """FM-12: a mail that a kept connection fails goes to another only if the server never heard of it.

    So in no case is a mail taken twice.
    """

    async def story() -> None:
        acted = False

        def script(where: str, connection: int, mail: int) -> Act | bytes | None:
            nonlocal acted
            if acted or where != point or mail < 2:
                return None
            acted = True
            return act

        server = ScriptedServer(script, offers=offers)
        async with talking_to(server, connections=1, timeout=30) as sender:
            await send(sender, mail("first@example.org"))
            outcome = await outcome_from(sender, server, act, expected)
        assert acted
        unheard = point == "MAIL" and expected in (not_sent, lost_early, throttled)
        likely = {resolved(expected, offers)}
        assert kind(outcome) in (likely | {"accepted"} if unheard else likely), outcome
        if unheard and act in (DROP, Act(b"421 4.7.0 too many\r\n", "drop")):
            assert kind(outcome) == "accepted"
        taken = [each.recipients for each in server.mails].count(("ada@example.org",))
        assert taken <= 1
        if kind(outcome) != ambiguous:
            assert taken == (kind(outcome) == "accepted")

    run(story())


@each_way
@pytest.mark.parametrize(("point", "expected"), [("MAIL", lost_early), (BODY, ambiguous)])
def test_silence_ends_by_itself(run: Run, offers: tuple[str, ...], point: str, expected: str) -> None:
    """FM-12: a reply that does not come within the time-out ends the wait, and the connection."""

    async def story() -> None:
        server = ScriptedServer(at(point, HANG), offers=offers)
        # Long enough to get there on a busy machine.
        async with talking_to(server, connections=1, timeout=1.0, final_timeout=1.0) as sender:
            outcome = await send(sender, mail())
        assert kind(outcome) == resolved(expected, offers)
        assert "no answer within 1 s" in str(outcome)

    run(story())


@each_way
@pytest.mark.parametrize("seed", range(5))
def test_chaos(run: Run, offers: tuple[str, ...], seed: int) -> None:
    """FM-11, FM-12: whatever goes wrong wherever, each mail has one outcome, and the server agrees with it.

    Accepted is in the server's mails once; NotSent and Refused are not there; Ambiguous may be, once.
    """
    rng = random.Random(seed)
    acts: list[Act | bytes] = [
        DROP,
        TAKE_AND_DROP,
        Act(b"421 4.3.2 bye\r\n", "drop"),
        Act(b"250 2.0.0 ok\r\n", "drop"),
        b"451 4.3.0 not now\r\n",
        b"554 5.7.1 no\r\n",
        b"garbage\r\n",
        b"250 2.0.0 ok\r\n250 2.0.0 ok\r\n",
        b"354 go on\r\n",
    ]

    def script(point: str, connection: int, mail: int) -> Act | bytes | None:
        if point == "EHLO" or rng.random() > 0.05:
            return None
        # Two verdicts on one body, the first before its end, are beyond what a client can make sense of.
        return DROP if point == BODY_BEGINS else rng.choice(acts)

    async def story() -> None:
        server = ScriptedServer(script, offers=offers)
        envelopes = [mail(f"m{i}@example.org") for i in range(300)]
        async with talking_to(server, connections=5, timeout=5.0) as sender:
            found = await outcomes(sender, envelopes)
        taken = Counter(address for each in server.mails for address in each.recipients)
        for envelope, outcome in zip(envelopes, found, strict=True):
            least, most = {"accepted": (1, 1), ambiguous: (0, 1)}.get(kind(outcome), (0, 0))
            assert least <= taken[envelope.recipient] <= most, (envelope.recipient, outcome)
        assert sum(isinstance(outcome, Accepted) for outcome in found) > 100

    run(story())
