"""Whether one recipient is refused or everybody: many in a row, with nothing accepted between."""

from __future__ import annotations

from schemas.keys import DeliveryKey
from schemas.send_results import Accepted, Refused, Throttled, Undecided
from streams.refused_by_all import RefusedByAll

DENIED = Undecided("554 5.7.1 Relay access denied", permanent=True)


def key(member: int) -> DeliveryKey:
    return DeliveryKey(1, "invite", member, "Student")


def test_everybody_is_refused() -> None:
    """FM-37: a server that relays for nobody makes the campaign wait; nobody's attempts are used."""
    judged = RefusedByAll(enough=5)
    found = [judged.judge(DENIED, key(n), None, 1.0 * n) for n in range(8)]
    assert found[:4] == [DENIED] * 4
    assert found[4:] == [Throttled(f"nothing else gets through: {DENIED.reply}")] * 4


def test_the_same_recipient_again_proves_nothing() -> None:
    """FM-37: one recipient who always ends the dialogue is refused for themself, and ends by time."""
    judged = RefusedByAll(enough=2)
    assert all(judged.judge(DENIED, key(1), 1.0 * n, 1.0 * n) == DENIED for n in range(50))


def test_one_accepted_mail_clears_everybody() -> None:
    """FM-37: the server takes mails again."""
    judged = RefusedByAll(enough=2)
    for n in range(3):
        judged.judge(DENIED, key(n), None, 1.0)
    assert judged.judge(Accepted("250 ok"), key(9), None, 2.0) == Accepted("250 ok")
    assert judged.judge(DENIED, key(3), None, 3.0) == DENIED


def test_the_rest_of_a_batch_ends() -> None:
    """FM-37: many recipients who were each refused while others were accepted do not wait for ever."""
    judged = RefusedByAll(enough=2)
    judged.judge(Accepted("250 ok"), key(99), None, 100.0)
    for n in range(10):
        # All were refused first before the last mail was accepted.
        assert judged.judge(DENIED, key(n), 150.0, 200.0) == DENIED
    # First refused after it: nothing was accepted since.
    assert isinstance(judged.judge(DENIED, key(10), 50.0, 200.0), Throttled)


def test_a_refused_recipient_is_no_sign_of_anything() -> None:
    """A refusal for the recipient's own sake passes, and neither adds nor clears."""
    judged = RefusedByAll(enough=2)
    judged.judge(DENIED, key(1), None, 0.0)
    no_such_user = Refused("550 5.1.1 no", permanent=True)
    assert judged.judge(no_such_user, key(2), None, 0.0) == no_such_user
    assert isinstance(judged.judge(DENIED, key(3), None, 0.0), Throttled)
