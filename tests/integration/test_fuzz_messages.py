"""Messages of any bytes between good ones, through the steps of a real worker on a real database."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from config.settings import Settings
from db.connect import AsyncConnection
from schemas.envelope import Envelope
from schemas.send_results import Accepted, SendResult
from streams.claim_log import NoClaimLog
from streams.composer import TemplateComposer
from streams.records import Heartbeat, InvalidRecord, Record
from streams.worker import Worker
from tests.fuzzing import fuzz
from tests.integration.importing import EVENT
from tests.integration.scenario import Scenario

MEMBERS: Final = range(1, 6)
#: A message as its producer puts it: key and value.
Put = tuple[bytes | None, bytes | None]


class Outbox:
    """A sender that hands everything over, and remembers what."""

    def __init__(self) -> None:
        self.recipients: Counter[str] = Counter()

    async def check(self) -> None:
        """Always there."""

    async def ready(self) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Nothing to close."""

    def capacity(self) -> int:
        """No limit."""
        return 1000

    def submit(
        self,
        envelope: Envelope,
        done: Callable[[SendResult], None],
        permitted: Callable[[], bool],
        completing: Callable[[], bool] | None = None,
    ) -> None:
        """Accepted."""
        assert permitted()
        self.recipients[envelope.recipient] += 1
        asyncio.get_running_loop().call_soon(done, Accepted("250 ok"))


class Letters:
    """Dead letters as they were put."""

    def __init__(self) -> None:
        self.put_so_far: list[InvalidRecord] = []

    async def put(self, letters: Sequence[InvalidRecord]) -> None:
        """Acknowledged at once."""
        self.put_so_far += letters


async def never_restored(_: AsyncConnection) -> None:
    """There is no Kafka here with events of this database."""


class Bench:
    """A worker's steps, with events to invite to, as many as there are examples."""

    def __init__(self, scenario: Scenario, settings: Settings) -> None:
        self.scenario = scenario
        self.outbox = Outbox()
        self.letters = Letters()
        self._events = count(2)
        self._offsets = count()

        async def build() -> Worker:
            worker = Worker(
                settings,
                self.outbox,
                TemplateComposer(settings.mail_from, settings.base_url, lambda: datetime.now(UTC)),
                self.letters,
                Heartbeat(),
                NoClaimLog(),
                never_restored,
            )
            worker.start(lambda error: None)
            return worker

        self.worker = scenario.run(build())

    def batch(self) -> tuple[int, int]:
        """An event and a batch of all members, unpublished."""
        event = next(self._events)
        self.scenario.load(EVENT | {"id": event})
        return event, self.scenario.plan("students", event)

    def process(self, takes: Sequence[Sequence[Put]]) -> list[Record]:
        """The messages in so many takes at once; what they were as records."""
        made = [[Record("topic", 0, next(self._offsets), key, value) for key, value in take] for take in takes]

        async def at_once() -> None:
            await asyncio.gather(*(self.worker.process(take) for take in made))

        self.outbox.recipients.clear()
        self.letters.put_so_far.clear()
        self.scenario.run(asyncio.wait_for(at_once(), 30))
        return [record for take in made for record in take]


@pytest.fixture
def bench(scenario: Scenario, settings_for: Callable[..., Settings]) -> Iterator[Bench]:
    """Five members on a list, and a batch that no message ever names."""
    scenario.build(students=MEMBERS)
    scenario.plan("students")
    made = Bench(scenario, settings_for())
    yield made
    scenario.run(made.worker.stop())


def due(batch: int, event: int, member: int, **fields: Any) -> dict[str, Any]:
    """What a message says."""
    said = {"version": 1, "batch_id": batch, "event_id": event, "member_id": member, "action": "invite"}
    return said | {"roles": ["Student"]} | fields


NUMBERS: Final[st.SearchStrategy[Any]] = st.sampled_from(
    [0, -1, 1.5, 2**63, 10**400, 4711, 2**63 - 1, "1", None, True, float("nan"), [], {}]
)
#: One field that makes a message poison, whatever the rest says.
WRONG: Final = st.one_of(
    st.tuples(st.sampled_from(["batch_id", "event_id", "member_id"]), NUMBERS),
    st.tuples(st.just("version"), st.sampled_from([0, 2, "1", None, 10**400, [1]])),
    st.tuples(st.just("action"), st.sampled_from(["", "mail", "INVITE", None, 1, "\ud800", "\0"])),
    st.tuples(
        st.just("roles"), st.sampled_from([[], ["student"], ["Student"] * 3, "Student", None, [None], [["Coach"]]])
    ),
    st.tuples(st.text(max_size=4).map("x".__add__), st.one_of(NUMBERS, st.text(max_size=5))),
    st.tuples(st.just("y" * 300_000), st.just(1)),
)
#: Bytes that are no message at all.
BYTES: Final = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"", b"null", b"[]", b"{}", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 5_000, b"x" * 1_000_000]
    ),
)


@st.composite
def poison(draw: st.DrawFn, batch: int, event: int) -> Put:
    """A key and a value that can never be processed."""
    member = draw(st.sampled_from(MEMBERS))
    key = b"%d" % member
    said = due(batch, event, member)
    value = json.dumps(said).encode()
    match draw(st.sampled_from(["bytes", "null", "field", "missing", "cut", "key", "unknown", "insert"])):
        case "bytes":
            return draw(st.none() | st.binary(max_size=9) | st.just(key)), draw(BYTES)
        case "null":
            return draw(st.sampled_from([None, b"", key])), None
        case "field":
            name, wrong = draw(WRONG)
            return key, json.dumps(said | {name: wrong}).encode()
        case "missing":
            del said[draw(st.sampled_from(sorted(said)))]
            return key, json.dumps(said).encode()
        case "cut":
            return key, value[: draw(st.integers(0, 90))]
        case "key":
            others = [None, b"", b"0" + key, b" " + key, key + b"\0", b"+" + key, b"\xd9\xa1", b"%d" % (member % 5 + 1)]
            return draw(st.sampled_from(others)), value
        case "unknown":
            names = draw(st.sampled_from([{"batch_id": 10**6}, {"event_id": 10**6}, {"event_id": 1}, {"batch_id": 1}]))
            return key, json.dumps(said | names).encode()
        case _:
            at = draw(st.integers(0, 90))
            return key, value[:at] + draw(st.sampled_from([b"\0", b"\xff", b"\xed\xa0\x80", b"\x1b"])) + value[at:]


def fine(batch: int, event: int, member: int, style: int) -> Put:
    """A good message, written as some other producer might write it."""
    said = due(batch, event, member)
    texts = [
        json.dumps(said),
        json.dumps(said, indent=2),
        json.dumps(dict(reversed(said.items())), separators=(",", ":")),
        json.dumps(said | {"roles": ["Coach", "Student"]}).replace("invite", "\\u0069nvite"),
    ]
    return b"%d" % member, texts[style].encode()


def test_repeated_poison(bench: Bench) -> None:
    """FM-20: a message that contradicts the database has a dead letter for each record of the poll that holds it."""
    put = (b"1", json.dumps(due(1_000_000, 1, 1)).encode())
    records = bench.process([[put, put], [put]])
    assert Counter(id(letter.record) for letter in bench.letters.put_so_far) == Counter(map(id, records))


def test_any_messages(bench: Bench) -> None:
    """FM-20: nothing raises; each poison is put once, its key and its bytes as they came, each good message between
    them is mailed once, and no other item is touched.
    """
    scenario = bench.scenario

    def others() -> list[dict[str, Any]]:
        return scenario.execute("SELECT i::text FROM batch_items i WHERE batch_id = 1 ORDER BY 1") + scenario.execute(
            "SELECT d::text FROM deliveries d WHERE event_id = 1 UNION ALL SELECT l::text FROM log_entries l"
            " WHERE batch_id = 1 ORDER BY 1"
        )

    untouched = others()

    @fuzz(120)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        event, batch = bench.batch()
        bad = data.draw(st.lists(poison(batch, event), max_size=8))
        chosen = data.draw(st.lists(st.tuples(st.sampled_from(MEMBERS), st.integers(0, 3)), max_size=8))
        good = [fine(batch, event, member, style) for member, style in chosen]
        puts = data.draw(st.permutations([*bad, *good]))
        at = data.draw(st.integers(0, len(puts)))
        records = bench.process([puts[:at], puts[at:]])
        letters = [letter.record for letter in bench.letters.put_so_far]
        assert Counter(map(id, letters)) == Counter(
            id(record) for record in records if (record.key, record.value) in bad
        )
        assert all(0 < len(letter.reason) < 1000 for letter in bench.letters.put_so_far)
        assert bench.outbox.recipients == Counter({f"m{member}@example.org": 1 for member, _ in chosen})
        log = {member: status for (member, _), (status, _) in scenario.log(batch).items()}
        mailed = {member for member, _ in chosen}
        assert log == {member: "sent" if member in mailed else "pending" for member in MEMBERS}
        # The same again, as after a crash before the commit: the poison is put again, nobody is mailed again.
        bench.process([puts])
        assert len(bench.letters.put_so_far) == len(bad)
        assert not bench.outbox.recipients

    check()
    assert others() == untouched


def test_any_bytes(bench: Bench) -> None:
    """FM-20: bytes that are nearly a message are one, or are put as a dead letter: nothing is dropped in silence."""
    event, batch = bench.batch()
    valid = json.dumps(due(batch, event, 1)).encode()

    @fuzz(150)
    @given(at=st.integers(0, len(valid)), cut=st.integers(0, 3), piece=st.binary(max_size=3))
    @example(at=0, cut=0, piece=b"\xef\xbb\xbf")
    @example(at=len(valid), cut=0, piece=b"\n")
    def check(at: int, cut: int, piece: bytes) -> None:
        value = valid[:at] + piece + valid[at + cut :]
        (record,) = bench.process([[(b"1", value)]])
        if bench.letters.put_so_far:
            assert [letter.record for letter in bench.letters.put_so_far] == [record]
            assert record.value == value
        else:
            assert json.loads(value) | {"roles": []} == due(batch, event, 1, roles=[])

    check()
    assert (
        sum(row["n"] for row in bench.scenario.execute("SELECT count(*) AS n FROM deliveries WHERE state = 'sent'"))
        == 1
    )
