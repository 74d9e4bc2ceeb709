"""Messages that are read again: replays of a batch and of the topic, and redriven dead letters."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from confluent_kafka import Producer

from config.kafka import client_config
from config.settings import Settings
from producers.topics import Topics
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, eventually
from tests.conformance.test_runner_poison import due, letters

pytestmark = pytest.mark.slow


def drained(settings: Settings) -> bool:
    """Whether the group has committed everything."""
    topics = Topics(settings)
    partitions = topics.partitions()
    return topics.committed(partitions) == topics.latest(partitions)


def test_offsets_move_only_while_the_group_is_empty(bidden: Bidden, books: Books, settings: Settings) -> None:
    """FM-22: refused with the members' names while workers run; then all is read again, and no mail is sent."""
    bidden.import_lines(*directory(range(1, 201)))
    worker = bidden.worker()
    bidden.invite("students", "--wait")
    eventually(lambda: drained(settings), "everything is committed")
    committed = Topics(settings).committed(Topics(settings).partitions())
    for arguments in (["--from-beginning"], ["--since", "2026-01-01T00:00:00Z"], ["--to-offset", "0:0"]):
        error = bidden.run("replay", *arguments, "--json", code=2).error
        assert error["error"] == "refused"
        assert settings.group in error["detail"]
        assert "bidden-worker-" in error["detail"]
    assert Topics(settings).committed(Topics(settings).partitions()) == committed
    worker.stop()
    moved = bidden.run("replay", "--from-beginning", "--json").json["partitions"]
    assert moved == {str(p): {"from": offset, "to": 0} for p, offset in committed.items()}
    assert bidden.run("replay", "--from-beginning", "--json").json["partitions"] == {
        str(p): {"from": 0, "to": 0} for p in committed
    }
    bidden.worker()
    eventually(lambda: drained(settings), "everything was read again")
    assert books.sink.count() == 200
    books.check()


def test_to_a_time_and_to_offsets(bidden: Bidden, books: Books, settings: Settings) -> None:
    """A time moves every partition to its first message since; an offset moves its partition alone."""
    bidden.import_lines(*directory(range(1, 101), range(101, 141)))
    worker = bidden.worker()
    bidden.invite("students", "--wait")
    eventually(lambda: drained(settings), "everything is committed")
    first = Topics(settings).committed(Topics(settings).partitions())
    between = datetime.now(UTC)
    bidden.invite("coaches", "--wait")
    eventually(lambda: drained(settings), "everything is committed")
    both = Topics(settings).committed(Topics(settings).partitions())
    worker.stop()
    moved = bidden.run("replay", "--since", between.isoformat(), "--json").json["partitions"]
    assert moved == {str(p): {"from": both[p], "to": first[p]} for p in both}
    late = bidden.run("replay", "--since", datetime.now(UTC).isoformat(), "--json").json["partitions"]
    assert late == {str(p): {"from": first[p], "to": both[p]} for p in both}
    one = bidden.run("replay", "--to-offset", "1:3", "--to-offset", "2:0", "--json").json["partitions"]
    assert one == {"1": {"from": both[1], "to": 3}, "2": {"from": both[2], "to": 0}}
    assert Topics(settings).committed(Topics(settings).partitions()) == both | {1: 3, 2: 0}
    bidden.worker()
    eventually(lambda: drained(settings), "everything was read again")
    assert books.sink.count() == 140


def test_a_batch_is_published_again(bidden: Bidden, books: Books, settings: Settings) -> None:
    """FM-22: with workers running, settled items cost no mail, and a back-off is not shortened."""
    bidden.import_lines(*directory(range(1, 101)))
    books.sink.set_rules([{"do": "refuse_recipient", "recipient": "m7@*", "reply": "451 4.7.1 Try later"}])
    bidden.worker(BIDDEN_RETRY_BASE_SECONDS="600")
    batch = bidden.invite()["batch_id"]
    eventually(lambda: books.states() == {"sent": 99, "retry": 1}, "all but one are sent")
    for _ in range(2):
        assert bidden.run("replay", "--batch", str(batch), "--json").json == {"published": 100}
    eventually(lambda: drained(settings), "everything was read again")
    assert books.states() == {"sent": 99, "retry": 1}
    assert books.attempts()[7, "Student"] == 1
    assert books.sink.count() == 99
    bidden.run("cancel", str(batch), "--json")
    assert bidden.run("replay", "--batch", str(batch), "--json").json == {"published": 100}
    eventually(lambda: drained(settings), "everything was read again")
    assert books.sink.count() == 99


def test_dead_letters(bidden: Bidden, books: Books, settings: Settings) -> None:
    """FM-20: dead letters are listed with their reason, shown to the byte, and redriven with their key."""
    bidden.import_lines(*directory(range(1, 11)))
    poison: list[tuple[bytes | None, bytes | None]] = [
        (b"1", b"\xff\x00 no JSON"),
        (None, None),
        (b"1", b"x" * 1_000_000),
        # A batch that does not exist yet: the cause that is repaired below.
        (b"5", due(1, 5)),
    ]
    assert bidden.run("dlq", "list", "--json").lines == []
    producer = Producer(client_config(settings, "test") | {"message.max.bytes": 2_000_000}, logger=None)
    for key, value in poison:
        producer.produce(settings.invitations_topic, value, key, partition=0)
    assert producer.flush(30) == 0
    worker = bidden.worker()
    letters(settings, 4)
    listed = bidden.run("dlq", "list", "--json").lines
    assert [line["source_offset"] for line in listed] == [0, 1, 2, 3]
    assert [line["key"] for line in listed] == ["1", None, "1", "5"]
    assert {line["source_topic"] for line in listed} == {settings.invitations_topic}
    assert {(line["partition"], line["source_partition"], line["redriven_at"]) for line in listed} == {(0, 0, None)}
    assert "unknown batch 1" in listed[3]["reason"]
    assert all(datetime.fromisoformat(line["at"]).tzinfo for line in listed)
    for line, (key, value) in zip(listed, poison, strict=True):
        shown = bidden.run("dlq", "show", f"0:{line['offset']}", "--json").json
        assert {name: shown[name] for name in line} == line
        assert (None if shown["value"] is None else base64.b64decode(shown["value"])) == value
        assert shown["headers"]["bidden-reason"] == line["reason"]
        assert shown["key"] == (key.decode() if key else None)
    bidden.run("dlq", "list")
    bidden.run("dlq", "show", "0:0")

    # Now the batch exists, and its member waits for this message.
    worker.stop()
    assert bidden.invite()["batch_id"] == 1
    (done,) = bidden.run("dlq", "redrive", "0:3", "--json").lines
    assert done == listed[3] | {"redriven_at": done["redriven_at"]}
    assert bidden.run("dlq", "redrive", "0:3", "--json").lines == []
    (again,) = [line for line in bidden.run("dlq", "list", "--json").lines if line["redriven_at"]]
    assert again == done
    bidden.worker()
    books.wait_completed(1)
    books.check()
    assert books.sink.count() == 10
    # The others are still invalid: they become new dead letters, key and bytes unchanged, and are not redriven again.
    put_back = bidden.run("dlq", "redrive", "--all", "--json").lines
    assert [line["offset"] for line in put_back] == [0, 1, 2]
    found = letters(settings, 7)
    assert sorted((bytes(m.key() or b""), m.value()) for m in found[4:]) == sorted(
        (key or b"", value) for key, value in poison[:3]
    )
    assert bidden.run("dlq", "redrive", "0:0", "--json").lines == []
    assert [line["offset"] for line in bidden.run("dlq", "redrive", "0:0", "--again", "--json").lines] == [0]
    assert books.sink.count() == 10


def test_dead_letters_that_are_discarded(bidden: Bidden, settings: Settings) -> None:
    """FM-41: a letter is set aside for good: kept, listed, redriven only by name; `doctor` counts those that wait."""
    producer = Producer(client_config(settings, "test"), logger=None)
    for value in (b"x", b"y", b"z"):
        producer.produce(
            settings.dead_letter_topic, value, b"1", headers=[("bidden-topic", settings.invitations_topic)]
        )
        assert producer.flush(30) == 0
    assert "3 wait" in waiting(bidden, ok=False)
    (discarded,) = bidden.run("dlq", "discard", "0:1", "--json").lines
    assert datetime.fromisoformat(discarded["discarded_at"]).tzinfo
    assert bidden.run("dlq", "discard", "0:1", "--json").lines == [discarded], "safe to repeat"
    assert bidden.run("dlq", "list", "--json").lines[1] == discarded
    assert bidden.run("dlq", "show", "0:1", "--json").json["value"] == base64.b64encode(b"y").decode()
    assert "2 wait" in waiting(bidden, ok=False)
    for code, arguments in ((2, ["0:99"]), (2, []), (2, ["0"])):
        bidden.run("dlq", "discard", *arguments, "--json", code=code)
    error = bidden.run("dlq", "redrive", "0:1", "--json", code=2).error
    assert (error["error"], error["field"]) == ("refused", "letter")
    assert "discarded" in error["detail"]
    for options in ([], ["--again"]):
        redriven = bidden.run("dlq", "redrive", "--all", *options, "--json").lines
        assert [line["offset"] for line in redriven] == [0, 2]
    assert "none wait" in waiting(bidden)
    assert "discarded 1" in bidden.run("dlq", "discard", "0:1").out
    (again,) = bidden.run("dlq", "redrive", "0:1", "--again", "--json").lines
    assert again["redriven_at"]
    assert again["discarded_at"] == discarded["discarded_at"]


def waiting(bidden: Bidden, *, ok: bool = True) -> str:
    """What `doctor` says about dead letters. It finds more: no worker runs."""
    (line,) = [line for line in bidden.run("doctor", "--json", code=1).lines if line["check"] == "dead letters"]
    assert line["ok"] == ok
    return str(line["detail"])


def test_dead_letters_from_other_topics(bidden: Bidden, settings: Settings) -> None:
    """A dead letter that names another topic is listed, and never redriven to it."""
    producer = Producer(client_config(settings, "test"), logger=None)
    producer.produce(settings.dead_letter_topic, b"x", b"1", headers=[("bidden-topic", b"elsewhere")])
    producer.produce(settings.dead_letter_topic, b"y", b"\xff", headers=[("bidden-offset", "1½".encode())])
    assert producer.flush(30) == 0
    listed = bidden.run("dlq", "list", "--json").lines
    assert [(line["source_topic"], line["source_offset"], line["reason"]) for line in listed] == [
        ("elsewhere", None, None),
        (None, None, None),
    ]
    error = bidden.run("dlq", "redrive", "0:0", "--json", code=2).error
    assert (error["error"], error["field"]) == ("refused", "letter")
    assert bidden.run("dlq", "redrive", "--all", "--json").lines == []
    assert bidden.run("dlq", "show", "0:1", "--json").json["key"] == "\\xff"
