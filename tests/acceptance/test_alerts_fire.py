"""Each alert is made to fire on real servers by a real Prometheus, and the commands of its runbook clear it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from config.kafka import producer_config
from config.settings import Settings
from db import checks
from embedded.stack import Stack
from tests.acceptance.books import Books, directory
from tests.acceptance.full_disk import SmallDisk
from tests.acceptance.monitors import Monitor
from tests.acceptance.processes import ROOT, Bidden, Process, environment, eventually
from tests.acceptance.prometheus import Prometheus
from tests.integration.snapshots import MADE_UP, snapshot

pytestmark = pytest.mark.slow

#: Commands of a runbook that run until they are stopped.
_SERVICES = ("dispatch", "worker", "serve")


class Operator:
    """Who is woken: reads the runbook of an alert, and runs its commands as they stand there."""

    def __init__(self, bidden: Bidden, folder: Path) -> None:
        self.bidden = bidden
        self.dispatcher, self.worker = Monitor(), Monitor()
        self.processes: dict[str, Process] = {}
        self._tools = folder / "tools"
        self._tools.mkdir()
        tool = self._tools / "bidden"
        tool.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m cli.main "$@"\n')
        tool.chmod(0o755)

    def start(self, name: str, **env: str) -> Process:
        """A dispatcher or a worker, at the place that Prometheus knows."""
        monitor = {"dispatch": self.dispatcher, "worker": self.worker}[name]
        self.processes[name] = self.bidden.start(name, **monitor.env, **env)
        return self.processes[name]

    def follow(self, alert: str, **variables: str) -> None:
        """Run the commands of the alert's runbook, in their order. Services are started in the background.

        `doctor` may find something, and say so with 1; anything else must succeed.
        """
        text = (ROOT / "docs" / "how-to" / "runbooks.md").read_text()
        (section,) = re.findall(rf"^## {alert}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        lines = [
            line for block in re.findall(r"^```bash\n(.*?)^```", section, re.M | re.S) for line in block.splitlines()
        ]
        assert lines
        for line in lines:
            words = line.split()
            if words[0] == "bidden" and words[1] in _SERVICES:
                running = self.processes.get(words[1])
                if running is None or not running.running:
                    self.start(words[1])
                continue
            env = environment(self.bidden.settings, **variables)
            done = subprocess.run(
                ["bash", "-c", line],
                env=env | {"PATH": f"{self._tools}:{env['PATH']}"},
                cwd=self.bidden.folder,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode in ((0, 1) if words[:2] == ["bidden", "doctor"] else (0,)), (line, done.stderr)


@pytest.fixture
def operator(bidden: Bidden, tmp_path: Path) -> Operator:
    """An operator of the test's installation."""
    return Operator(bidden, tmp_path)


@contextmanager
def watched(operator: Operator, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes its dispatcher and its worker."""
    with Prometheus(folder, [operator.dispatcher, operator.worker]) as prometheus:
        yield prometheus


@pytest.fixture
def prometheus(operator: Operator, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the operator's dispatcher and worker."""
    with watched(operator, tmp_path) as found:
        yield found


def calm(prometheus: Prometheus, operator: Operator) -> None:
    """A dispatcher and a worker; returns once no alert fires."""
    operator.start("dispatch")
    operator.start("worker").ready()
    for name in ("BiddenDown", "BiddenNobodyPublishes"):
        prometheus.wait_clear(name)
    assert prometheus.firing() == set()


@pytest.mark.parametrize("alert", ["BiddenDown", "BiddenNobodyPublishes"])
def test_no_dispatcher(prometheus: Prometheus, operator: Operator, alert: str) -> None:
    """A dispatcher is killed; one is started."""
    calm(prometheus, operator)
    operator.processes["dispatch"].kill()
    prometheus.wait_firing(alert)
    operator.follow(alert)
    prometheus.wait_clear(alert)


@pytest.mark.parametrize("alert", ["BiddenNobodyWorks", "BiddenLagWithoutProgress", "BiddenOldestDueItem"])
def test_no_worker(prometheus: Prometheus, operator: Operator, books: Books, alert: str) -> None:
    """A batch, and nobody who sends it; a worker is started."""
    operator.bidden.import_lines(*directory(range(1, 301)))
    operator.start("dispatch")
    # Without one, the trigger publishes more, and nothing is left that is due.
    eventually(lambda: checks.dispatchers(books.conn) == 1, "a dispatcher is there")
    batch = operator.bidden.invite()["batch_id"]
    prometheus.wait_firing(alert)
    operator.follow(alert)
    prometheus.wait_clear(alert)
    books.wait_completed(batch)
    books.check()


def test_mail_server_away(prometheus: Prometheus, operator: Operator, books: Books) -> None:
    """It stops; it is started again."""
    calm(prometheus, operator)
    books.sink.stop()
    prometheus.wait_firing("BiddenMailServerAway")
    operator.follow("BiddenMailServerAway")
    assert "BiddenMailServerAway" in prometheus.firing()
    books.sink.start()
    operator.follow("BiddenMailServerAway")
    prometheus.wait_clear("BiddenMailServerAway")


def test_unknown(prometheus: Prometheus, operator: Operator, books: Books) -> None:
    """The connection is lost after a mail was stored; the mail server's log has it, so it is resolved as sent."""
    calm(prometheus, operator)
    operator.bidden.import_lines(*directory(range(1, 11)))
    books.sink.set_rules([{"do": "drop_after_store", "recipient": "m3@*"}])
    batch = operator.bidden.invite()["batch_id"]
    books.wait_completed(batch)
    assert books.states()["unknown"] == 1
    prometheus.wait_firing("BiddenUnknown")
    operator.follow("BiddenUnknown", EVENT="1", BATCH=str(batch))
    prometheus.wait_clear("BiddenUnknown")
    books.check()


def test_dead_letters(prometheus: Prometheus, operator: Operator, settings: Settings) -> None:
    """A message that cannot be decoded; it is set aside."""
    calm(prometheus, operator)
    producer = Producer(producer_config(settings, "test"))
    producer.produce(settings.invitations_topic, b"nonsense", b"1")
    assert producer.flush(10) == 0
    prometheus.wait_firing("BiddenDeadLettersWaiting")
    operator.follow("BiddenDeadLettersWaiting", LETTER="0:0")
    prometheus.wait_clear("BiddenDeadLettersWaiting")


def test_audit_unbalanced(prometheus: Prometheus, operator: Operator, books: Books) -> None:
    """Somebody has deleted an item; its member is planned again."""
    operator.bidden.import_lines(*directory(range(1, 11)))
    operator.bidden.invite()
    books.conn.execute("DELETE FROM batch_items WHERE member_id = 3")
    operator.start("dispatch")
    operator.start("worker")
    prometheus.wait_firing("BiddenAuditUnbalanced")
    operator.follow("BiddenAuditUnbalanced", EVENT="1")
    # It is sampled again in ten minutes, or when a dispatcher starts.
    operator.processes["dispatch"].stop()
    operator.start("dispatch")
    # Without a dispatcher the alert is over, too.
    operator.dispatcher.wait_value("bidden_audit_imbalance", 0, check="planned_without_item")
    prometheus.wait_clear("BiddenAuditUnbalanced")
    assert books.states() == {"sent": 10}


def test_disk_full(prometheus: Prometheus, operator: Operator, tmp_path: Path) -> None:
    """The disk of a worker's journal is full; somebody makes room."""
    disk = SmallDisk(tmp_path / "small", 8)
    try:
        operator.start("dispatch")
        operator.start("worker", BIDDEN_STATE_DIR=str(tmp_path / "small")).ready()
        assert "BiddenDiskFull" not in prometheus.firing()
        disk.fill()
        prometheus.wait_firing("BiddenDiskFull")
        operator.follow("BiddenDiskFull", BIDDEN_STATE_DIR=str(tmp_path / "small"))
        disk.empty()
        prometheus.wait_clear("BiddenDiskFull")
    finally:
        disk.unmount()


def made_up_source(settings: Settings, folder: Path) -> dict[str, str]:
    """The variables of a source that can be read, and gets no invitations."""
    file = folder / "source.sql"
    file.write_text(MADE_UP)
    return {
        "BIDDEN_SOURCE_URL": settings.require_database(),
        "BIDDEN_SOURCE_FILE": str(file),
        "BIDDEN_SOURCE_TIME_ZONE": "Europe/Oslo",
        "BIDDEN_SOURCE_MAX_AGE": "1h",
    }


def test_source_stale(
    prometheus: Prometheus, operator: Operator, books: Books, settings: Settings, tmp_path: Path
) -> None:
    """No snapshot was taken for an hour; one is."""
    calm(prometheus, operator)
    snapshot(books.conn, age=3600)
    prometheus.wait_firing("BiddenSourceStale")
    operator.follow("BiddenSourceStale", **made_up_source(settings, tmp_path))
    prometheus.wait_clear("BiddenSourceStale")


def test_not_placed(
    prometheus: Prometheus, operator: Operator, books: Books, settings: Settings, tmp_path: Path
) -> None:
    """The source does not get the invitations of a batch; then it need not get any."""
    calm(prometheus, operator)
    snapshot(books.conn, limit=None)
    books.conn.execute("UPDATE directory_source SET places = true")
    operator.bidden.import_lines(*directory(range(1, 3)))
    operator.bidden.invite()
    books.conn.execute("UPDATE batches SET started_at = now() - interval '10 minutes'")
    prometheus.wait_firing("BiddenNotPlaced")
    operator.follow("BiddenNotPlaced", **made_up_source(settings, tmp_path))
    prometheus.wait_clear("BiddenNotPlaced")


def authority(days: int) -> bytes:
    """A certificate of an authority that ends in so many days, as PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_certificate_ends(prometheus: Prometheus, operator: Operator, tmp_path: Path) -> None:
    """An authority's certificate ends in three days; it is renewed, and the dispatcher started again."""
    file = tmp_path / "ca.pem"
    file.write_bytes(authority(days=3))
    operator.start("dispatch", BIDDEN_KAFKA_CA_FILE=str(file))
    prometheus.wait_firing("BiddenCertificateEnds")
    operator.follow("BiddenCertificateEnds")
    file.write_bytes(authority(days=300))
    operator.processes["dispatch"].stop()
    operator.start("dispatch", BIDDEN_KAFKA_CA_FILE=str(file))
    prometheus.wait_clear("BiddenCertificateEnds")


@pytest.mark.parametrize("server", ["kafka", "postgres"])
def test_server_away(tmp_path: Path, server: str) -> None:
    """PostgreSQL or Kafka stops, and is started again; our processes wait."""
    with Stack(tmp_path / "servers") as stack:
        values = {
            "database_url": stack.addresses.database_url,
            "kafka_bootstrap": stack.addresses.kafka_bootstrap,
            "smtp_url": stack.addresses.smtp_url,
            "partitions": 4,
        }
        make: Callable[..., Settings] = Settings
        with Bidden(make(**values), tmp_path) as bidden:
            bidden.run("migrate", "--json")
            operator = Operator(bidden, tmp_path)
            with watched(operator, tmp_path) as prometheus:
                calm(prometheus, operator)
                stopped = getattr(stack, server)
                stopped.stop()
                prometheus.wait_firing("BiddenServerAway")
                stopped.start()
                operator.follow("BiddenServerAway")
                prometheus.wait_clear("BiddenServerAway")
                assert all(process.running for process in operator.processes.values())
