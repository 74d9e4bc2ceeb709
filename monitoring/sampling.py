"""What each kind of process asks for its metrics and its readiness, and how often."""

from __future__ import annotations

import contextlib
import shutil
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from config import metrics
from config.health import Health
from config.metrics import DISPATCHER, KAFKA, MAIL, POSTGRESQL, WORKER
from config.settings import Settings
from db import checks, dead_letters, samples, source_status
from db.connect import Connection, can_write, connect
from mail.smtp.greeting import is_greeted
from monitoring import sending
from monitoring.sampler import Sampler
from schemas.errors import UnreachableError

if TYPE_CHECKING:
    from producers.dead_letters import DeadLetterReader
    from producers.topics import Topics

Ask = Callable[[float], None]

#: Between two requests to a server, in seconds.
_OFTEN: Final = 5.0
_SELDOM: Final = 15.0
#: Whole tables are read.
_AUDIT: Final = 600.0
#: The longest that one statement may take.
_STATEMENT_SECONDS: Final = 10.0
_AUDIT_STATEMENT_SECONDS: Final = 120.0
_GREETING_SECONDS: Final = 5.0


def samplers(process: str, settings: Settings, health: Health) -> list[Sampler]:
    """The threads for one kind of process, not started."""
    found = [Sampler("PostgreSQL", POSTGRESQL, _OFTEN, _writable(settings), health)]
    if process == WORKER:
        found.append(Sampler("Kafka", KAFKA, _OFTEN, _worker_lag(settings), health))
        if settings.smtp_url is not None:
            found.append(Sampler("mail server", MAIL, _SELDOM, _greeting(settings.require_smtp()), health))
    elif process == DISPATCHER:
        ledger = _Ledger(settings)
        found += [
            Sampler("Kafka", KAFKA, _OFTEN, _Group(settings).ask, health),
            Sampler("ledger", POSTGRESQL, _OFTEN, ledger.sample, health, shows=False),
            Sampler("audit", POSTGRESQL, _AUDIT, ledger.audit, health, shows=False),
            Sampler("dead letters", KAFKA, _SELDOM, _DeadLetters(settings).ask, health, shows=False),
        ]
    return found


def show_disk(folder: Path) -> None:
    """The worker's journal needs space: asked of the file system at a scrape, which costs microseconds."""

    def usage(of: str) -> float:
        for path in (folder, *folder.absolute().parents):
            with contextlib.suppress(OSError):
                return float(getattr(shutil.disk_usage(path), of))
        return 0.0

    metrics.DISK_FREE.set_function(lambda: usage("free"))
    metrics.DISK_SIZE.set_function(lambda: usage("total"))


class _Kept:
    """A connection to PostgreSQL, opened again after an error."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.require_database()
        self._conn: Connection | None = None

    @contextlib.contextmanager
    def use(self, statement_seconds: float) -> Iterator[Connection]:
        """The connection; no statement may take longer."""
        if self._conn is None:
            self._conn = connect(self._url, application="bidden-metrics", autocommit=True)
            samples.limit_time(self._conn, statement_seconds)
        try:
            yield self._conn
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """It is opened again when it is used again."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(Exception):
                conn.close()


def _writable(settings: Settings) -> Ask:
    kept = _Kept(settings)

    def ask(_: float) -> None:
        with kept.use(_STATEMENT_SECONDS) as conn:
            if not can_write(conn):
                raise UnreachableError("the database is read-only")

    return ask


class _Ledger:
    """Samples of the ledger: those that indexes answer, and those that read whole tables."""

    def __init__(self, settings: Settings) -> None:
        self._often = _Kept(settings)
        self._seldom = _Kept(settings)
        self._ca_file = settings.kafka_ca_file
        self._rates = settings.send_rates
        #: Unknown deliveries without a log entry, by the last audit.
        self._unlogged = 0

    def sample(self, keep: float) -> None:
        with self._often.use(_STATEMENT_SECONDS) as conn:
            due = samples.due(conn)
            metrics.DUE.set(due.items, keep_seconds=keep)
            metrics.OLDEST_DUE.set(due.seconds, keep_seconds=keep)
            metrics.UNKNOWN.set(samples.unknown(conn) + self._unlogged, keep_seconds=keep)
            metrics.DISPATCHERS.set(checks.dispatchers(conn), keep_seconds=keep)
            metrics.WEBHOOKS_DUE.set(samples.webhooks_due(conn), keep_seconds=keep)
            metrics.SEND_WAIT.set(sending.read(conn, self._rates).seconds_to_next, keep_seconds=keep)
            source = source_status.read(conn)
            found = {batches.state: batches for batches in samples.open_batches(conn)}
        if source is not None:
            metrics.SOURCE_AGE.set(source.age_seconds, keep_seconds=keep)
            metrics.SOURCE_SET_ASIDE.set(source.set_aside, keep_seconds=keep)
            if source.places:
                metrics.SOURCE_PLACING.set(source.placing_seconds or 0.0, keep_seconds=keep)
            if source.max_age_seconds is not None:
                metrics.SOURCE_MAX_AGE.set(source.max_age_seconds, keep_seconds=keep)
        for state in metrics.OPEN_STATES:
            found.setdefault(state, samples.OpenBatches(state, 0, 0, 0.0))
        metrics.OPEN_BATCHES.set({s: b.batches for s, b in found.items()}, keep_seconds=keep)
        metrics.PENDING.set({s: b.items for s, b in found.items()}, keep_seconds=keep)
        metrics.OLDEST_BATCH.set({s: b.seconds for s, b in found.items()}, keep_seconds=keep)

    def audit(self, keep: float) -> None:
        if self._ca_file is not None:
            metrics.CERTIFICATE.set(ends_of(self._ca_file), keep_seconds=keep)
        try:
            with self._seldom.use(_AUDIT_STATEMENT_SECONDS) as conn:
                self._unlogged = samples.unknown_without_entry(conn)
                found = {name: checks.violations_of(conn, name) for name in metrics.AUDIT_CHECKS}
        finally:
            self._seldom.close()
        metrics.AUDIT_IMBALANCE.set(found, keep_seconds=keep)


class _Group:
    """The group's lag, offsets and members, by a client that is made again after an error (ADR 15)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics: Topics | None = None

    def ask(self, keep: float) -> None:
        from producers.topics import Topics

        topics, self._topics = self._topics or Topics(self._settings), None
        held = topics.read_offsets(datetime.now(UTC)).partitions
        metrics.LAG.set({str(p): offsets.lag for p, offsets in held.items()}, keep_seconds=keep)
        committed = {str(p): o.committed for p, o in held.items() if o.committed is not None}
        metrics.COMMITTED.set(committed, keep_seconds=keep)
        metrics.WORKERS.set(topics.member_count(), keep_seconds=keep)
        self._topics = topics


class _DeadLetters:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept = _Kept(settings)
        self._reader: DeadLetterReader | None = None

    def ask(self, keep: float) -> None:
        from producers.dead_letters import DeadLetterReader

        reader, self._reader = self._reader or DeadLetterReader(self._settings), None
        with self._kept.use(_STATEMENT_SECONDS) as conn:
            waiting = reader.waiting(dead_letters.handled(conn, reader.topic_id))
        metrics.DEAD_LETTERS_WAITING.set(waiting, keep_seconds=keep)
        self._reader = reader


def _worker_lag(settings: Settings) -> Ask:
    from streams.vital_signs import WorkerLag

    lag = WorkerLag(settings)

    def ask(keep: float) -> None:
        metrics.LAG.set({str(p): waiting for p, waiting in lag.read().items()}, keep_seconds=keep)

    return ask


def _greeting(url: str) -> Ask:
    def ask(_: float) -> None:
        # A server may limit connections: it is not asked for one more while the worker has some.
        connections = next(iter(metrics.SMTP_CONNECTIONS.collect())).samples[0].value
        if not connections and not is_greeted(url, _GREETING_SECONDS):
            raise UnreachableError("it takes no session")

    return ask


def ends_of(file: Path) -> dict[str, float]:
    """When the first of the authorities in a PEM file ends, in Unix time, by server; nothing if there are none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(file)
    ends = [float(ssl.cert_time_to_seconds(str(found["notAfter"]))) for found in context.get_ca_certs()]
    return {KAFKA: min(ends)} if ends else {}
