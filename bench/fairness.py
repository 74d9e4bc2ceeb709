"""How long a small batch takes behind a large one, at a limited rate.

    python -m bench.fairness --planned 100000 --seconds 0.2

The mail server takes `seconds` for each mail, on ten connections: 50 mails a second at 0.2. Prints when the ten members
of a second batch, triggered two seconds after the first mail of the large one, have their mails.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bench.environment import EVENT, Environment, prepare, wait_for
from config.clock import now
from db import planning, reports
from db.connect import Connection, connect
from embedded.stack import Stack
from producers.dispatch import BatchPublisher
from producers.plan import plan
from schemas.vocabulary import Audience

_SMALL = 10
_BEHIND_SECONDS = 2.0
_SMALL_EVENT = 9001

_SECOND_EVENT = """
INSERT INTO chapters VALUES (9000, 'Ten', 'ten@bidden.example', 'Europe/London');
INSERT INTO groups VALUES (9000, 9000, 'Students');
INSERT INTO members (id, name, email, accepted_toc_at)
SELECT 5000000 + n, 'Ten', 'ten' || n || '@bidden.example', now() FROM generate_series(1, 10) n;
INSERT INTO subscriptions SELECT 5000000 + n, 9000 FROM generate_series(1, 10) n;
INSERT INTO events (id, kind, name, starts_at, ends_at, invitable, host_name)
VALUES (9001, 'workshop', 'Ten', now() + interval '9 days', now() + interval '9 days', true, 'Host');
INSERT INTO event_chapters VALUES (9001, 9000, 0)
"""


def main() -> None:
    """Parses the arguments, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__)
    parser.add_argument("--planned", type=int, default=6000, help="members of the large batch")
    parser.add_argument("--seconds", type=float, default=0.2, help="of the mail server, for each mail")
    parser.add_argument("--runners", nargs="+", default=["confluent", "faust"], choices=["confluent", "faust"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bidden-bench-") as folder:
        Path(folder).chmod(0o711)
        with Stack(Path(folder) / "home") as stack:
            for runner in arguments.runners:
                measured = prepare(stack, arguments.planned)
                with connect(measured.database_url, autocommit=True) as conn:
                    measure(measured, conn, runner, arguments.seconds)


def measure(environment: Environment, conn: Connection, runner: str, seconds: float) -> None:
    """One campaign and the ten behind it."""
    conn.execute(_SECOND_EVENT)
    sink = environment.stack.mail
    sink.set_rules([{"do": "delay", "seconds": seconds}])
    publisher = BatchPublisher(environment.settings, now)
    with environment.worker(runner), environment.dispatcher():
        large = _trigger(conn, publisher, EVENT, Audience.EVERYONE)
        wait_for(lambda: reports.status(conn, large)["sent"] > 0, every=0.1)
        time.sleep(_BEHIND_SECONDS)
        before, started = sink.count(), time.perf_counter()
        small = _trigger(conn, publisher, _SMALL_EVENT, Audience.STUDENTS)
        planned = time.perf_counter() - started
        wait_for(lambda: reports.status(conn, small)["sent"] == _SMALL, every=0.05, seconds=3000)
        took = time.perf_counter() - started
        mails = sink.count() - before
        status = reports.status(conn, large)
        print(
            f"{runner}: {_SMALL} behind {status['planned']:,} are done {took:.1f} s after their trigger"
            f" ({planned:.2f} s of it planning and publishing), {mails} mails at {mails / took:.0f}/s;"
            f" the large batch then has {status['sent']:,} sent",
            flush=True,
        )
        started = time.perf_counter()
        before = reports.status(conn, large)["sent"]
        time.sleep(5)
        rate = (reports.status(conn, large)["sent"] - before) / (time.perf_counter() - started)
        row = conn.execute(
            "SELECT count(*) AS n FROM batch_items WHERE settled_at IS NULL AND publish_at IS NULL"
            " AND kafka_offset IS NOT NULL"
        ).fetchone()
        assert row is not None
        print(f"{runner}: the large batch goes on at {rate:.0f}/s, with {row['n']:,} on the topic", flush=True)
        conn.execute("UPDATE batches SET state = 'paused'")
    sink.clear_rules()


def _trigger(conn: Connection, publisher: BatchPublisher, event: int, audience: Audience) -> int:
    """What `bidden invite` does."""
    batch = plan(conn, event_id=event, audience=audience).batch_id
    assert batch is not None
    publisher.publish(conn, batch)
    planning.analyse(conn)
    return batch


if __name__ == "__main__":
    main()
