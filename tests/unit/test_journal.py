"""The journal of a worker: what a killed process has noted, and when it is believed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas.delivery import Delivery
from schemas.invitation import Recipient
from schemas.journal import NotedClaim
from schemas.keys import DeliveryKey
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from streams.dead_journals import _take, outcome_of
from streams.journal import FileJournal, NoJournal, boot_id
from streams.journal_records import Header, begun_line, claimed_line, header_line, outcome_line, parse
from tests.tables import ROOT

HEADER = Header("this boot", "this database", "host:7:ab")
OUTCOMES: list[Outcome] = [
    Sent("250 ok"),
    Failed("550 no", "550 no"),
    Retry("451 later", 12.5, 1, "451 later", refused=True),
    Retry("away", 5.0, 0),
    Unknown("no reply"),
]


def delivery(member: int, fence: int = 3, outcome: Outcome | None = None) -> Delivery:
    """A claimed delivery."""
    made = Delivery(5, DeliveryKey(1, "invite", member, "Student"), "Student", 2, 40 + member)
    made.fence, made.outcome = fence, outcome
    return made


def text_of(*lines: bytes) -> bytes:
    """A journal with these lines."""
    return b"".join((header_line(HEADER), *lines))


def claims_of(text: bytes) -> list[NotedClaim] | None:
    """What a journal says to a worker of the same boot and database."""
    return parse(text, HEADER.boot, HEADER.database)


class Loop:
    """`soon` and `monotonic` of an event loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.called: list[object] = []

    def monotonic(self) -> float:
        return self.now


def journal_in(folder: Path, loop: Loop | None = None, max_bytes: int = 4_000_000) -> FileJournal:
    """A journal that its worker has opened."""
    loop = loop or Loop()
    return FileJournal(
        folder, HEADER, monotonic=loop.monotonic, soon=lambda work: loop.called.append(work), max_bytes=max_bytes
    )


def path_in(folder: Path) -> Path:
    """The one journal in a folder."""
    (path,) = folder.glob("*.journal")
    return path


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
def test_what_is_noted_is_recorded(outcome: Outcome) -> None:
    """FM-42: an outcome as it was; begun without one is unknown; neither is due again, without an attempt."""
    claims = claims_of(
        text_of(
            claimed_line("host:7:ab#1", [delivery(1), delivery(2)]),
            claimed_line("host:7:ab#2", [delivery(3)]),
            begun_line(delivery(1)),
            begun_line(delivery(2)),
            outcome_line(delivery(1, outcome=outcome)),
        )
    )
    assert claims is not None
    assert [(c.owner[-1], c.key.member_id, c.fence, c.batch_id, c.partition, c.offset) for c in claims] == [
        ("1", 1, 3, 5, 2, 41),
        ("1", 2, 3, 5, 2, 42),
        ("2", 3, None, 5, 2, 43),
    ]
    first, second, third = map(outcome_of, claims)
    assert first == outcome
    assert isinstance(second, Unknown)
    assert isinstance(third, Retry)
    assert (third.delay, third.uses) == (0.0, 0)


def test_a_later_claim_of_the_same_key_counts() -> None:
    """A retry has another fence; what was noted of the earlier claim is over."""
    claims = claims_of(
        text_of(
            claimed_line("a#1", [delivery(1, 3)]), begun_line(delivery(1, 3)), claimed_line("a#9", [delivery(1, 4)])
        )
    )
    assert claims is not None
    assert [(claim.owner, claim.fence, claim.begun) for claim in claims] == [("a#9", None, False)]


def test_no_address_is_noted() -> None:
    """A reply is noted as the ledger keeps it."""
    made = delivery(1, outcome=Failed("550 <ada@example.org> unknown", "550 <ada@example.org> unknown"))
    made.recipient = Recipient(1, "Ada", None, "ada@example.org", "token")
    assert b"ada@" not in outcome_line(made)


@pytest.mark.parametrize(("boot", "database"), [("another boot", "this database"), ("this boot", "another database")])
def test_of_another_boot_or_database_it_says_nothing(boot: str, database: str) -> None:
    """FM-42: after a start of the machine the last lines may be missing: claimed would look like not begun."""
    assert parse(text_of(claimed_line("a#1", [delivery(1)])), boot, database) is None


WHOLE = text_of(claimed_line("a#1", [delivery(1), delivery(2)]), begun_line(delivery(1)), begun_line(delivery(2)))


@given(st.integers(0, len(WHOLE) - 1))
def test_a_torn_journal_says_nothing(length: int) -> None:
    """A part of a line is not believed; a journal that ends with a line is whole, as far as anybody can say."""
    cut = WHOLE[:length]
    assert (claims_of(cut) is None) == (not cut.endswith(b"\n"))


@given(st.binary(max_size=60))
def test_a_foreign_line_says_nothing(line: bytes) -> None:
    """Whatever it is, it raises nothing."""
    found = claims_of(WHOLE + line + b"\n")
    assert found is None or line in {begun_line(delivery(1))[:-1], begun_line(delivery(2))[:-1]}


@pytest.mark.parametrize(
    "line",
    [b"[]", b"null", b'["begun","1/invite/9/Student",3]', b'["begun","1/invite/1/Student",4]', b'["claimed","a",[[1]]]',
     b'["outcome","1/invite/1/Student",3,{"state":"sent"}]', b'["outcome","1/invite/1/Student",3,{}]', b"", b"\xff"],
)  # fmt: skip
def test_a_line_that_no_worker_writes(line: bytes) -> None:
    """A mail that was never claimed, a fence that was not, fields that are missing."""
    assert claims_of(WHOLE + line + b"\n") is None


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.test_journal import delivery, journal_in
from schemas.outcomes import Sent
journal = journal_in(Path(sys.argv[1]))
journal.claiming("a#1", [delivery(n) for n in (1, 2, 3, 4)])
for n in (1, 2, 3):
    assert journal.begin(delivery(n))
    journal.answered(delivery(1, outcome=Sent("250"))) if n == 1 else None
journal.answered(delivery(2, outcome=Sent("250")))
print("noted", flush=True)
os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


@contextmanager
def process_that(folder: Path, number: str) -> Iterator[subprocess.Popen[str]]:
    """A worker that has claimed four, begun three and noted the outcome of one, then got this signal."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _KILLED, str(folder), number]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "noted\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_killed_process_leaves_what_it_noted(tmp_path: Path) -> None:
    """FM-42: an outcome is written at the latest with the next mail, so one more mail at most is in doubt."""
    with process_that(tmp_path, "SIGKILL") as process:
        assert process.wait(30) == -signal.SIGKILL
    with _take(path_in(tmp_path)) as text:
        assert text is not None
        claims = claims_of(text)
    assert claims is not None
    found = [type(outcome_of(claim)) for claim in claims]
    assert found == [Sent, Unknown, Unknown, Retry]


def test_the_journal_of_a_frozen_process_is_not_taken(tmp_path: Path) -> None:
    """FM-42: whatever it does not do, it lives, and may go on: its claims are its own until its leases end."""
    with process_that(tmp_path, "SIGSTOP"), _take(path_in(tmp_path)) as text:
        assert text is None


def test_an_open_journal_is_taken_once_it_is_let_go(tmp_path: Path) -> None:
    """The lock ends with the worker that closes it; without claims no file is left."""
    journal = journal_in(tmp_path)
    journal.claiming("a#1", [delivery(1)])
    with _take(path_in(tmp_path)) as text:
        assert text is None
    journal.close()
    with _take(path_in(tmp_path)) as text:
        assert text is not None
    other = journal_in(tmp_path / "other")
    other.claiming("a#1", [delivery(1)])
    other.recorded([delivery(1)])
    other.close()
    assert not list((tmp_path / "other").iterdir())


def test_a_long_journal_is_rewritten(tmp_path: Path) -> None:
    """With what is in flight, in its place; who had opened the old file does not take it for a dead worker's."""
    journal = journal_in(tmp_path, max_bytes=20_000)
    kept = delivery(1)
    journal.claiming("a#0", [kept])
    assert journal.begin(kept)
    old = os.open(path_in(tmp_path), os.O_RDONLY)
    sizes = []
    for n in range(2, 600):
        made = delivery(n)
        journal.claiming(f"a#{n}", [made])
        assert journal.begin(made)
        made.outcome = Sent("250 ok")
        journal.answered(made)
        journal.recorded([made])
        sizes.append(path_in(tmp_path).stat().st_size)
    assert max(sizes) < 20_500
    assert sorted(sizes) != sizes, "it was never rewritten"
    claims = claims_of(path_in(tmp_path).read_bytes())
    assert claims is not None
    assert [claim.begun for claim in claims if claim.key == kept.key] == [True]
    assert not os.path.samestat(os.fstat(old), path_in(tmp_path).stat())
    os.close(old)
    assert not list(tmp_path.glob("*.new"))
    journal.close()


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: the write that would is cut short, the next one refused."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_refuses_a_write(tmp_path: Path) -> None:
    """FM-42: what lacks a line is withdrawn at once, mails go on; later it is written again, with what is in flight."""
    loop = Loop()
    journal = journal_in(tmp_path, loop)
    first, second = delivery(1), delivery(2)
    journal.claiming("a#1", [first])
    assert journal.begin(first)
    with capture_logs() as logs:
        with files_up_to(path_in(tmp_path).stat().st_size + 30):
            journal.claiming("a#2", [second])
            assert path_in(tmp_path).read_bytes() == b""
            assert journal.begin(second)
            loop.now += 31
            journal.claiming("a#3", [delivery(3)])
            assert path_in(tmp_path).read_bytes() == b""
        journal.claiming("a#4", [delivery(4)])
        assert path_in(tmp_path).read_bytes() == b"", "tried too soon"
        loop.now += 31
        journal.claiming("a#5", [delivery(5)])
    assert [entry["log_level"] for entry in logs] == ["warning"]
    claims = claims_of(path_in(tmp_path).read_bytes())
    assert claims is not None
    assert [(claim.key.member_id, claim.begun) for claim in claims] == [
        (1, True),
        (2, True),
        (3, False),
        (4, False),
        (5, False),
    ]
    journal.close()


def test_a_journal_that_cannot_be_withdrawn_lets_no_mail_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-42: on a disk that refuses everything it would say of a mail that it was not begun."""
    journal = journal_in(tmp_path)
    journal.claiming("a#1", [delivery(1)])

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        for name in ("write", "ftruncate", "unlink"):
            broken.setattr(os, name, refuse)
        with capture_logs():
            assert not journal.begin(delivery(1))
            assert not journal.begin(delivery(1))
    journal.close()


def test_the_machine_tells_its_starts_apart() -> None:
    """And without a journal mails go out all the same."""
    assert len(boot_id()) > 30
    assert NoJournal().begin(delivery(1))
