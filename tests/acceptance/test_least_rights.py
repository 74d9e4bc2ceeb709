"""Each process with exactly the rights of deploy/acls and deploy/grants.sql, and what is said when one of them lacks.

The files are read here as an operator would run them: what the code needs beyond them fails the campaign.
"""

from __future__ import annotations

import re
import shlex
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, LiteralString, cast
from urllib.parse import urlsplit

import psycopg
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without saying so
    AclBinding,
    AclOperation,
    ResourceType,
)
from psycopg import sql

from config.kafka import producer_config
from config.rights import Process
from config.settings import Settings
from db import rights as of_database
from db.connect import connect
from db.statements import functions
from monitoring import group_protocol
from producers import rights as of_kafka
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, eventually
from tests.databases import database_of
from tests.secure_kafka import PASSWORD, Cluster, binding, secure_cluster
from tests.servers import Servers
from tests.tables import ROOT

pytestmark = pytest.mark.slow

MEMBERS: Final = 60
GRANTS: Final = ROOT / "deploy" / "grants.sql"
_KINDS: Final = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,
}


def acls(process: Process, user: str, settings: Settings) -> list[AclBinding]:
    """The ACLs of the process's script in deploy/acls, with the names of these settings."""
    found = []
    for line in (ROOT / "deploy" / "acls" / f"{process}.sh").read_text().splitlines():
        if not line.startswith("allow "):
            continue
        words = shlex.split(line.replace("$PREFIX", settings.topic_prefix).replace("$GROUP", settings.group))
        assert words[:2] == ["allow", "--operation"], line
        operation = AclOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", words[2]).upper()]
        kind, name = words[3].removeprefix("--"), words[4] if len(words) > 4 else "kafka-cluster"
        found.append(binding(user, _KINDS[kind], name, operation))
    assert found, process
    return found


def grants(process: Process) -> list[str]:
    """The lines of deploy/grants.sql that grant the process something of a table."""
    text = GRANTS.read_text()
    return re.findall(rf"^GRANT [A-Z, ]+ ON \w+ TO bidden_{process};$", text, re.MULTILINE)


@dataclass
class Installation:
    """Users for each process, each with its rights alone."""

    cluster: Cluster
    owner: str
    settings: dict[Process, Settings]
    users: dict[Process, str]

    def bidden(self, process: Process, folder: Path) -> Bidden:
        """The command line as that user."""
        made = Bidden(self.settings[process], folder)
        made.secrets.add(PASSWORD)
        return made

    def execute(self, statement: str) -> None:
        """As the owner of the tables, or who made the roles."""
        with psycopg.connect(self.owner, autocommit=True) as conn:
            conn.execute(cast("LiteralString", statement))  # type: ignore[redundant-cast] # not to other checkers


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The broker with an authorizer."""
    with secure_cluster(tmp_path_factory.mktemp("secure")) as running:
        yield running


@pytest.fixture
def installation(
    cluster: Cluster, real_servers: Servers, settings_for: Callable[..., Settings], tmp_path: Path
) -> Iterator[Installation]:
    """A migrated installation whose processes have users of their own."""
    unique = uuid.uuid4().hex[:8]
    database = f"rights_{unique}"
    server = real_servers.postgres
    logins = {process: f"{process}_{unique}" for process in Process}
    with psycopg.connect(server, autocommit=True) as conn:
        for login in logins.values():
            conn.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(login), sql.Literal(PASSWORD))
            )
        owner = sql.Identifier(logins[Process.MIGRATE])
        conn.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), owner))
        conn.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))
    base = settings_for()
    settings, users = {}, {}
    for process, login in logins.items():
        where = urlsplit(database_of(server, database))
        how: dict[str, Any] = cluster.add_user(login)
        how["database_url"] = f"postgresql://{login}:{PASSWORD}@{where.hostname}:{where.port}/{database}"
        settings[process] = settings_for(**how, topic_prefix=base.topic_prefix, group=base.group)
        users[process] = login
        cluster.allow(*acls(process, login, settings[process]))
    made = Installation(cluster, database_of(server, database), settings, users)
    with made.bidden(Process.MIGRATE, tmp_path) as migrate:
        migrate.run("migrate", "--json")
    made.execute(GRANTS.read_text())
    for process, login in logins.items():
        if process is not Process.MIGRATE:
            made.execute(f"GRANT bidden_{process} TO {login}")
    yield made
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))
        for login in logins.values():
            conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(login)))


def test_a_campaign(installation: Installation, tmp_path: Path, mail_sink: Any) -> None:
    """FM-01: each process runs with its own rights alone, whichever the runner; and `doctor` finds that it has them.

    A batch, a dead letter and a replay for each runner, in the group of the one before.
    """
    operator = installation.bidden(Process.OPERATOR, tmp_path)
    worker = installation.bidden(Process.WORKER, tmp_path)
    dispatcher = installation.bidden(Process.DISPATCHER, tmp_path)
    web = installation.bidden(Process.WEB, tmp_path)
    with operator, worker, dispatcher, web, psycopg.connect(installation.owner, autocommit=True) as conn:
        conn.row_factory = psycopg.rows.dict_row  # type: ignore[assignment] # as `connect` does
        books = Books(cast("Any", conn), mail_sink)
        operator.import_lines(*directory(range(1, MEMBERS + 1), range(1, 11), events=2))
        # By a user with every right.
        poison = Producer(producer_config(installation.settings[Process.OPERATOR], "test"))
        site = web.start("serve", "--port", "0")
        dispatcher.dispatcher()
        for event, runner in enumerate(("confluent", "faust"), 1):
            poison.produce(installation.settings[Process.OPERATOR].invitations_topic, b"poison", b"1")
            assert poison.flush(20) == 0
            _replace_worker(worker, runner)
            first = operator.invite("students", "--wait", event=event)["batch_id"]
            second = operator.invite("coaches", "--wait", event=event)["batch_id"]
            assert operator.status(first)["sent"] == MEMBERS
            assert operator.status(second)["sent"] == 10
            operator.run("replay", "--batch", str(first), "--json")
            (letter,) = [one for one in operator.run("dlq", "list", "--json").lines if one["discarded_at"] is None]
            operator.run("dlq", "discard", f"{letter['partition']}:{letter['offset']}", "--json")
            books.wait_completed(first, second)
        for name in (Process.WORKER, Process.DISPATCHER, Process.WEB, Process.OPERATOR):
            found = installation.bidden(name, tmp_path).run("doctor", "--for", name, "--json").lines
            assert {"database rights", "kafka rights"} <= {line["check"] for line in found}
        _stop_workers(worker)
        operator.run("replay", "--from-beginning", "--json")
        for runner in ("confluent", "faust"):
            _replace_worker(worker, runner)
        operator.run("cleanup", "--json")
        assert site.running, site.log_tail()
        for event in (1, 2):
            books.check(event)


def _replace_worker(bidden: Bidden, runner: str) -> None:
    """The workers of a group have the same runner."""
    _stop_workers(bidden)
    bidden.worker(runner).ready()


def _stop_workers(bidden: Bidden) -> None:
    for process in bidden.processes:
        if process.running:
            process.stop()


def test_each_acl_that_lacks_is_named(installation: Installation) -> None:
    """FM-32: without any one ACL of any process, exactly that is found (brokers tell of topics and groups)."""
    cluster, some = installation.cluster, installation.settings[Process.WORKER]
    # What exists once an installation is used; the group has no member.
    offsets = ConsumerGroupTopicPartitions(some.group, [TopicPartition(some.invitations_topic, 0, 0)])
    cluster.admin.alter_consumer_group_offsets([offsets])[some.group].result(timeout=20)
    tried = 0
    for process in Process:
        settings = installation.settings[process].model_copy(update={"kafka_group_protocol": "consumer"})
        assert of_kafka.missing(settings, [process]) == [], process
        for acl in acls(process, installation.users[process], settings):
            if acl.restype not in (ResourceType.TOPIC, ResourceType.GROUP):
                continue
            cluster.forbid(acl)
            kind = next(name for name, found in _KINDS.items() if found is acl.restype)
            expected = [f"{AclOperation(acl.operation).name} on {kind} {acl.name} ({process})"]
            eventually(lambda: of_kafka.missing(settings, [process]) == expected, f"found: {expected}", 20)  # noqa: B023
            cluster.allow(acl)
            eventually(lambda: of_kafka.missing(settings, [process]) == [], "it is back", 20)  # noqa: B023
            tried += 1
    assert tried > 25
    # Of the cluster the check says it that needs it.
    settings = installation.settings[Process.OPERATOR].model_copy(update={"kafka_group_protocol": "consumer"})
    assert group_protocol.check(settings, [Process.OPERATOR])[0]
    of_operator = acls(Process.OPERATOR, installation.users[Process.OPERATOR], settings)
    (configs,) = (acl for acl in of_operator if acl.restype is _KINDS["cluster"])
    cluster.forbid(configs)
    found = group_protocol.check(settings, [Process.OPERATOR])
    assert (found[0], "DESCRIBE_CONFIGS on cluster kafka-cluster (operator)" in found[1]) == (False, True)


def test_each_grant_that_lacks_is_named(installation: Installation) -> None:
    """FM-32: without any one privilege of deploy/grants.sql, exactly that is found, and with all of them nothing."""
    tried = 0
    for process in Process:
        with connect(installation.settings[process].require_database(), autocommit=True) as conn:
            assert of_database.missing(conn, [process]) == [], process
            for line in grants(process):
                privileges, table = re.fullmatch(r"GRANT ([A-Z, ]+) ON (\w+) TO \w+;", line).groups()  # type: ignore[union-attr] # as found
                for privilege in privileges.split(", "):
                    installation.execute(f"REVOKE {privilege} ON {table} FROM bidden_{process}")
                    assert of_database.missing(conn, [process]) == [f"{privilege} on {table} ({process})"]
                    installation.execute(line)
                    tried += 1
    assert tried > 150


def test_what_is_granted_beside_tables(installation: Installation) -> None:
    """The function of a worker's transaction, the statistics, the sessions of others, and the owner's own."""
    role, login = "bidden_worker", installation.users[Process.WORKER]
    (function,) = functions().values()
    signature = f"(SELECT oid::regprocedure::text FROM pg_proc WHERE proname = '{function}')"
    revoke = f"DO $$ BEGIN EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || {signature} || ' FROM {role}'; END $$"
    cases = {
        Process.WORKER: (revoke, f"EXECUTE on {function} (worker)"),
        Process.DISPATCHER: (
            "REVOKE MAINTAIN ON deliveries FROM bidden_dispatcher",
            "MAINTAIN on deliveries (dispatcher)",
        ),
        Process.WEB: ("REVOKE pg_read_all_stats FROM bidden_web", "membership of pg_read_all_stats"),
        Process.MIGRATE: (f"ALTER TABLE members OWNER TO {login}", "ownership of members (migrate)"),
    }
    for process, (statement, found) in cases.items():
        with connect(installation.settings[process].require_database(), autocommit=True) as conn:
            installation.execute(statement)
            assert of_database.missing(conn, [process]) == [found]
    # Roles are the server's.
    installation.execute("GRANT pg_read_all_stats TO bidden_web")


def test_a_process_that_lacks_a_right_is_refused_at_start(installation: Installation, tmp_path: Path) -> None:
    """FM-32: exit 2, with the right's name; `doctor` says the same."""
    settings, user = installation.settings[Process.WORKER], installation.users[Process.WORKER]
    (write,) = (acl for acl in acls(Process.WORKER, user, settings) if acl.name == settings.dead_letter_topic)
    installation.cluster.forbid(write)
    with installation.bidden(Process.WORKER, tmp_path) as bidden:
        wanted = f"WRITE on topic {settings.dead_letter_topic} (worker)"
        for runner in ("confluent", "faust"):
            error = bidden.run("worker", "--runner", runner, "--json", code=2).error
            assert (error["error"], error["field"]) == ("refused", "BIDDEN_KAFKA_BOOTSTRAP"), error
            assert wanted in error["detail"]
        lines = bidden.run("doctor", "--for", "worker", "--json", code=1).lines
        (found,) = [line for line in lines if not line["ok"]]
        assert (found["check"], wanted in found["detail"]) == ("kafka rights", True), found
        installation.cluster.allow(write)
        installation.execute("REVOKE UPDATE ON deliveries FROM bidden_worker")
        error = bidden.run("worker", "--json", code=2).error
        assert (error["error"], error["field"]) == ("refused", "BIDDEN_DATABASE_URL"), error
        assert "UPDATE on deliveries (worker)" in error["detail"]
        installation.execute("GRANT UPDATE ON deliveries TO bidden_worker")


def test_a_right_that_is_taken_away_ends_the_worker(installation: Installation, tmp_path: Path) -> None:
    """FM-32: it would read nothing, for as long as nobody notices: it ends with 2 and says why."""
    settings, user = installation.settings[Process.WORKER], installation.users[Process.WORKER]
    found = acls(Process.WORKER, user, settings)
    (read,) = (acl for acl in found if acl.name == settings.invitations_topic)
    with installation.bidden(Process.WORKER, tmp_path) as bidden:
        worker = bidden.worker("confluent").ready()
        installation.cluster.forbid(read)
        assert worker.end() == 2, worker.log_tail()
        assert "authorization failed" in worker.err.read_text()
