"""What is mailed is what the directory says when it is claimed, not when its message was read."""

from __future__ import annotations

import pytest

from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden
from tests.integration.importing import load

pytestmark = pytest.mark.slow

MEMBERS = 300


@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_mails_say_what_the_directory_says(bidden: Bidden, books: Books, runner: str) -> None:
    """FM-41: addresses and place change after a batch was read: what is claimed from then on has the new ones."""
    lines = list(directory(range(1, MEMBERS + 1)))
    bidden.import_lines(*lines)
    books.slow(0.5)
    bidden.dispatcher()
    bidden.worker(runner)
    batch = bidden.invite()["batch_id"]
    books.wait_mails(20)
    changed = [
        line | {"host": {"name": "The New Place", "address": "2 Other Street"}}
        if line["type"] == "event"
        else line | {"email": f"m{line['id']}@new.example"}
        for line in lines
        if line["type"] in ("event", "member")
    ]
    load(books.conn, *changed)
    states = books.states()
    begun = states["sent"] + states["handing_off"]
    assert begun < MEMBERS - 50, "nearly all was sent: the test proves nothing"
    books.sink.clear_rules()
    books.wait_completed(batch)
    books.check()
    mails = list(books.sink.mails())
    assert sum(not mail.recipients[0].endswith("@new.example") for mail in mails) <= begun
    assert sum(b"The New Place" not in mail.data for mail in mails) <= begun
