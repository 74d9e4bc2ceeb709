"""The outbox: publish claims, receipts, and lost items."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from db import outbox
from db.connect import connect
from db.outbox import Backlog, DueItem, PartitionOffsets, PublishReceipt
from schemas.outcomes import Retry, Sent
from tests.integration.scenario import OTHER_TOPIC, TOPIC, Scenario


def members(items: list[DueItem]) -> set[int]:
    return {item.member_id for item in items}


def test_a_trigger_claims_what_it_planned(scenario: Scenario) -> None:
    """Items are planned under their trigger's publish claim; when it ends, any dispatcher gets them."""
    scenario.build(students=[1, 2], both=[3])
    batch = scenario.plan("everyone")
    assert outbox.claim_due_items(scenario.conn, 10) == []
    planned = outbox.items_claimed_by_trigger(scenario.conn, batch)
    positions = scenario.execute("SELECT member_id FROM batch_items ORDER BY position")
    assert [item.member_id for item in planned] == [row["member_id"] for row in positions]
    assert {tuple(item.roles) for item in planned if item.member_id == 3} == {("Student", "Coach")}
    assert outbox.count_unpublished(scenario.conn, batch) == 3
    scenario.make_due()
    assert members(outbox.claim_due_items(scenario.conn, 10)) == {1, 2, 3}


def test_a_publisher_dies_half_way(scenario: Scenario) -> None:
    """FM-27: only what the broker did not acknowledge is due again when the claim ends."""
    scenario.build(students=range(1, 11))
    batch = scenario.plan()
    items = outbox.items_claimed_by_trigger(scenario.conn, batch)
    outbox.store_receipts(scenario.conn, TOPIC, [PublishReceipt(item, 0, n) for n, item in enumerate(items[:4])])
    assert outbox.count_unpublished(scenario.conn, batch) == 6
    assert outbox.claim_due_items(scenario.conn, 100) == []
    scenario.make_due()
    assert members(outbox.claim_due_items(scenario.conn, 100)) == members(items[4:])
    # This dispatcher dies too, before it has published anything.
    assert outbox.claim_due_items(scenario.conn, 100) == []
    scenario.make_due()
    assert members(outbox.claim_due_items(scenario.conn, 100)) == members(items[4:])


def test_a_receipt_is_stored(scenario: Scenario) -> None:
    """An acknowledged item is no longer due, and has its message's partition and offset."""
    scenario.build(students=[1])
    batch = scenario.plan()
    scenario.make_due()
    assert scenario.publish(partition=3, offset=17) == 1
    item = scenario.item(batch, 1)
    assert (item["publish_at"], item["topic_id"], item["partition"], item["kafka_offset"]) == (None, TOPIC, 3, 17)
    assert scenario.publish() == 0


def test_a_late_receipt_keeps_a_newer_due_time(scenario: Scenario) -> None:
    """FM-27: the message was processed before its receipt was stored: the receipt does not clear the retry."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.make_due()
    (item,) = outbox.claim_due_items(scenario.conn, 10)
    agent.deliver(scenario.request(batch, 1), Retry("451", delay=100, uses=1))
    outbox.store_receipts(scenario.conn, TOPIC, [PublishReceipt(item, 0, 5)])
    assert 90 < scenario.item(batch, 1)["due_in"] <= 100
    assert scenario.item(batch, 1)["kafka_offset"] == 5


def test_a_receipt_of_an_older_claim(scenario: Scenario) -> None:
    """FM-27: a dispatcher believed dead acknowledges after another claimed the item: the newer claim stands."""
    scenario.build(students=[1])
    batch = scenario.plan()
    scenario.make_due()
    (slow,) = outbox.claim_due_items(scenario.conn, 10)
    scenario.make_due()
    (quick,) = outbox.claim_due_items(scenario.conn, 10)
    assert quick.claimed_until > slow.claimed_until
    outbox.store_receipts(scenario.conn, TOPIC, [PublishReceipt(slow, 0, 1)])
    assert scenario.item(batch, 1)["publish_at"] == quick.claimed_until
    outbox.store_receipts(scenario.conn, TOPIC, [PublishReceipt(quick, 0, 2)])
    assert (scenario.item(batch, 1)["publish_at"], scenario.item(batch, 1)["kafka_offset"]) == (None, 2)


def test_a_receipt_after_settling(scenario: Scenario) -> None:
    """FM-27: a late receipt of a settled item neither fails nor makes it due."""
    scenario.build(students=[1])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.make_due()
    (item,) = outbox.claim_due_items(scenario.conn, 10)
    agent.deliver(scenario.request(batch, 1))
    outbox.store_receipts(scenario.conn, TOPIC, [PublishReceipt(item, 0, 5)])
    assert scenario.is_settled(batch, 1)
    assert scenario.item(batch, 1)["publish_at"] is None
    scenario.make_due()
    assert outbox.claim_due_items(scenario.conn, 10) == []


def test_dispatchers_at_once_get_different_items(scenario: Scenario) -> None:
    """Each item is claimed by one dispatcher, and none waits for another."""
    scenario.build(students=range(1, 31))
    scenario.plan()
    scenario.make_due()
    with connect(scenario.url) as one, connect(scenario.url) as two:
        first, second = outbox.claim_due_items(one, 20), outbox.claim_due_items(two, 20)
        assert (len(first), len(second)) == (20, 10)
        assert members(first) | members(second) == set(range(1, 31))
        one.rollback()
    assert members(outbox.claim_due_items(scenario.conn, 100)) == members(first)


def test_the_longest_due_comes_first(scenario: Scenario) -> None:
    """A retry that has been due for long is published before a batch that was planned just now."""
    scenario.build(students=range(1, 11))
    scenario.plan()
    scenario.make_due()
    scenario.execute("UPDATE batch_items SET publish_at = now() - interval '1 hour' WHERE member_id = 7")
    assert members(outbox.claim_due_items(scenario.conn, 1)) == {7}


def test_a_paused_batch_is_not_published(scenario: Scenario) -> None:
    """Paused: neither published nor found lost; resumed, it is published from where it was."""
    scenario.build(students=[1, 2])
    batch = scenario.plan()
    scenario.make_due()
    scenario.set_state(batch, "paused")
    assert scenario.publish() == 0
    scenario.set_state(batch, "running")
    assert scenario.publish() == 2
    scenario.set_state(batch, "paused")
    assert scenario.find_lost({0: 100}) == 0
    scenario.set_state(batch, "running")
    assert scenario.find_lost({0: 100}) == 2


def published(scenario: Scenario, *numbers: int) -> int:
    """A batch of these members whose messages are on partition 0 from offset 10 on."""
    scenario.build(students=numbers)
    batch = scenario.plan()
    scenario.make_due()
    assert scenario.publish(partition=0, offset=10) == len(numbers)
    return batch


@pytest.mark.parametrize(("next_offset", "lost"), [(10, 0), (11, 1), (12, 2), (99, 2)])
def test_lost_items_are_due_again(scenario: Scenario, next_offset: int, lost: int) -> None:
    """FM-28: an unsettled item below the next offset that the group will read is due again."""
    batch = published(scenario, 1, 2)
    assert scenario.find_lost({0: next_offset, 1: 99}) == lost
    assert outbox.count_unpublished(scenario.conn, batch) == lost
    assert scenario.find_lost({0: next_offset, 1: 99}) == 0
    assert len(outbox.claim_due_items(scenario.conn, 10)) == lost


def test_lost_with_the_topic(scenario: Scenario) -> None:
    """FM-30: a topic that was created again has another id: all items are published again."""
    published(scenario, 1, 2)
    assert scenario.find_lost({0: 0}, OTHER_TOPIC) == 2


def test_lost_with_the_partition(scenario: Scenario) -> None:
    """A partition that the topic no longer has holds no messages."""
    published(scenario, 1, 2)
    assert scenario.find_lost({1: 0}) == 2


def test_under_a_live_lease_is_not_lost(scenario: Scenario) -> None:
    """FM-28: a delivery in flight is not lost until its lease has ended."""
    batch = published(scenario, 1, 2)
    agent = scenario.agent()
    claim = agent.claim(request := scenario.request(batch, 1))
    assert scenario.find_lost({0: 99}) == 1
    scenario.end_leases()
    assert scenario.find_lost({0: 99}) == 1
    assert scenario.item(batch, 1)["is_due"]
    agent.record(request, claim, Sent("250"))
    assert scenario.item(batch, 1)["publish_at"] is None


def test_settled_or_waiting_is_not_lost(scenario: Scenario) -> None:
    """Settled, excluded and due items are not lost, whatever the group's offset."""
    batch = published(scenario, 1, 2, 3)
    agent = scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    agent.deliver(scenario.request(batch, 2), Retry("451", delay=100, uses=1))
    second = scenario.trigger()
    assert second.excluded == {"already_sent": 1}
    assert scenario.find_lost({0: 99}) == 1
    assert scenario.item(batch, 3)["is_due"]
    assert scenario.item(batch, 2)["due_in"] > 90


def test_a_dead_workers_message_is_published_again(scenario: Scenario) -> None:
    """FM-28: its offset was committed without effect: it is found lost, published again and delivered."""
    batch = published(scenario, 1)
    assert scenario.find_lost({0: 11}) == 1
    assert scenario.publish(partition=0, offset=11) == 1
    assert scenario.item(batch, 1)["kafka_offset"] == 11
    assert scenario.find_lost({0: 11}) == 0
    scenario.agent().deliver(scenario.request(batch, 1))
    assert scenario.status(batch)["state"] == "completed"


def test_a_claim_has_an_end(scenario: Scenario) -> None:
    """A publish claim lasts half a minute: long enough to publish, short enough to wait for."""
    scenario.build(students=[1])
    scenario.plan()
    scenario.make_due()
    (item,) = outbox.claim_due_items(scenario.conn, 10)
    (now,) = scenario.execute("SELECT now() AS now")
    assert timedelta(seconds=25) < item.claimed_until - now["now"] <= timedelta(seconds=30)


@pytest.mark.parametrize(("end", "lost"), [(12, 0), (11, 1), (10, 2), (0, 2)])
def test_what_lies_beyond_the_end_is_lost(scenario: Scenario, end: int, lost: int) -> None:
    """FM-36: the log lost its tail: an item whose offset lies at its end or beyond is due again."""
    batch = published(scenario, 1, 2)
    assert scenario.find_lost({0: 10}, ends={0: end}) == lost
    assert outbox.count_unpublished(scenario.conn, batch) == lost
    assert scenario.find_lost({0: 10}, ends={0: end}) == 0


def test_what_is_published_after_the_end_was_read_is_not_lost(scenario: Scenario) -> None:
    """FM-36: the end was read, then an item was published beyond it, then the rows are read: it is alive."""
    batch = published(scenario, 1)
    offsets = scenario.offsets({0: 10}, ends={0: 11})
    scenario.execute("UPDATE batch_items SET publish_at = now()")
    assert scenario.publish(partition=0, offset=11) == 1
    assert outbox.make_lost_items_due(scenario.conn, offsets, 10) == 0
    # The next check reads the end once more.
    assert scenario.find_lost({0: 10}, ends={0: 12}) == 0
    assert scenario.find_lost({0: 10}, ends={0: 11}) == 1
    assert scenario.item(batch, 1)["is_due"]


def test_the_offset_of_a_lost_message_is_used_again(scenario: Scenario) -> None:
    """FM-36: a later message has got its offset: the item is lost as soon as the group has read that."""
    published(scenario, 1)
    assert scenario.find_lost({0: 10}, ends={0: 11}) == 0
    assert scenario.find_lost({0: 11}, ends={0: 11}) == 1


def test_a_commit_beyond_the_end(scenario: Scenario) -> None:
    """FM-36: the group is believed to read the end next; what was in the log below it is not lost twice."""
    published(scenario, 1, 2)
    assert PartitionOffsets(0, end=11, committed=99).next == 11
    assert PartitionOffsets(0, end=11, committed=99).has_lost_tail
    assert not PartitionOffsets(0, end=11, committed=11).has_lost_tail
    assert scenario.find_lost({0: 99}, ends={0: 11}) == 2


def test_lost_items_are_found_in_chunks(scenario: Scenario) -> None:
    """FM-40: no statement takes more than its limit; the next one goes on."""
    published(scenario, 1, 2, 3)
    offsets = scenario.offsets({0: 99})
    assert [outbox.make_lost_items_due(scenario.conn, offsets, 2) for _ in range(3)] == [2, 1, 0]


def test_gaps_between_partitions() -> None:
    """Ranges of partitions that a topic does not have."""
    last = 2**31 - 2
    assert outbox.gaps([0, 1, 2]) == [(3, last)]
    assert outbox.gaps([1, 4]) == [(0, 0), (2, 3), (5, last)]
    assert outbox.gaps([]) == [(0, last)]


def test_an_item_that_was_never_due(scenario: Scenario) -> None:
    """Neither due nor on the topic, as a resumed batch whose operator died in between: due again, unless paused."""
    scenario.build(students=[1, 2])
    batch = scenario.plan()
    scenario.execute("UPDATE batch_items SET publish_at = NULL")
    scenario.set_state(batch, "paused")
    assert scenario.find_lost({0: 0}) == 0
    scenario.set_state(batch, "running")
    assert scenario.find_lost({0: 0}) == 2


def two_batches(scenario: Scenario, large: int, small: int) -> tuple[int, int]:
    """A batch of coaches that is being sent, and a small batch of students that was planned later; both are due."""
    scenario.build(students=range(1, small + 1), coaches=range(100, 100 + large))
    batches = scenario.plan("coaches"), scenario.plan("students")
    scenario.execute("UPDATE batch_items SET publish_at = now() - interval '1 hour' WHERE batch_id = %s", batches[0])
    scenario.execute("UPDATE batch_items SET publish_at = now() WHERE batch_id = %s", batches[1])
    return batches


def test_batches_take_turns(scenario: Scenario) -> None:
    """FM-38: a small batch is claimed whole in the next round, however much of another has been due for longer."""
    large, small = two_batches(scenario, 200, 10)
    items = outbox.claim_due_items(scenario.conn, 30)
    assert Counter(item.batch_id for item in items) == {large: 20, small: 10}
    # In turns: what is published first is not all of one.
    assert Counter(item.batch_id for item in items[:20]) == {large: 10, small: 10}
    assert [item.batch_id for item in outbox.claim_due_items(scenario.conn, 30)] == [large] * 30


def test_each_batch_keeps_its_shuffled_order(scenario: Scenario) -> None:
    """FM-34, FM-38: turns change nothing within a batch."""
    for batch in two_batches(scenario, 40, 40):
        shuffled = scenario.execute("SELECT member_id FROM batch_items WHERE batch_id = %s ORDER BY position", batch)
        rounds = [item.member_id for item in outbox.claim_due_items(scenario.conn, 80) if item.batch_id == batch]
        assert rounds == [row["member_id"] for row in shuffled]
        scenario.execute("UPDATE batch_items SET publish_at = now() - interval '1 second'")


def test_retries_take_turns_with_new_items(scenario: Scenario) -> None:
    """FM-38: a retry does not wait until all of its batch was tried once."""
    scenario.build(students=range(1, 101))
    batch = scenario.plan()
    scenario.make_due()
    tried = outbox.claim_due_items(scenario.conn, 2)
    outbox.store_receipts(scenario.conn, TOPIC, [PublishReceipt(item, 0, n) for n, item in enumerate(tried)])
    for item in tried:
        scenario.agent().deliver(scenario.request(batch, item.member_id), Retry("451", delay=0, uses=1))
    claimed = outbox.claim_due_items(scenario.conn, 10)
    assert members(tried) <= members(claimed)
    assert len(claimed) == 10


def test_what_is_on_the_topic_and_not_settled_is_the_backlog(scenario: Scenario) -> None:
    """FM-38: what workers hold counts, what is settled, waits for a retry or will never be read does not."""
    batch = published(scenario, 1, 2, 3, 4)
    agent = scenario.agent()

    def backlog(committed: int) -> int:
        return outbox.count_backlog(scenario.conn, scenario.offsets({0: committed}), 100).on_topic

    assert (backlog(10), backlog(11)) == (4, 3)
    claim = agent.claim(request := scenario.request(batch, 1))
    assert backlog(10) == 4
    agent.record(request, claim, Sent("250"))
    agent.deliver(scenario.request(batch, 2), Retry("451", delay=100, uses=1))
    assert backlog(10) == 2
    assert outbox.count_backlog(scenario.conn, scenario.offsets({0: 10}, OTHER_TOPIC), 100) == Backlog(0, 0)


def test_what_others_publish_at_this_moment_is_known(scenario: Scenario) -> None:
    """FM-38: a dispatcher measures the workers' rate without what is on the topic and has no receipt yet."""
    scenario.build(students=range(1, 101))
    scenario.plan()
    scenario.make_due()

    def backlog() -> Backlog:
        return outbox.count_backlog(scenario.conn, scenario.offsets({0: 0}), 100)

    assert backlog() == Backlog(on_topic=0, claimed=0)
    items = outbox.claim_due_items(scenario.conn, 30)
    assert backlog() == Backlog(on_topic=0, claimed=30)
    outbox.store_receipts(scenario.conn, TOPIC, [PublishReceipt(item, 0, n) for n, item in enumerate(items[:20])])
    assert backlog() == Backlog(on_topic=20, claimed=10)


def test_a_trigger_gives_up_what_it_does_not_publish(scenario: Scenario) -> None:
    """FM-38: due for any dispatcher at once, unless one has claimed it meanwhile."""
    scenario.build(students=range(1, 11))
    batch = scenario.plan()
    items = outbox.items_claimed_by_trigger(scenario.conn, batch)
    assert not outbox.any_due(scenario.conn)
    outbox.release_items(scenario.conn, items[4:])
    assert members(outbox.claim_due_items(scenario.conn, 100)) == members(items[4:])
    outbox.release_items(scenario.conn, items[4:])
    assert not outbox.any_due(scenario.conn)
