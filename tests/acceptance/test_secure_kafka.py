"""Campaigns on a Kafka with TLS, by SCRAM and by client certificates; and what is said where it refuses a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from confluent_kafka import Producer

from config.kafka import producer_config
from config.settings import Settings
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden
from tests.integration.importing import load
from tests.secure_kafka import PASSWORD, Cluster, secure_cluster

pytestmark = pytest.mark.slow

MEMBERS: Final = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The broker with the listeners."""
    with secure_cluster(tmp_path_factory.mktemp("secure")) as running:
        for user in ("ada", "bob"):
            running.allow_all(user)
        yield running


@pytest.fixture(params=["scram", "certificates"])
def how(request: pytest.FixtureRequest, cluster: Cluster) -> dict[str, Any]:
    """The settings of each way to connect."""
    return cluster.add_user("ada") if request.param == "scram" else cluster.add_certificate("bob")


def test_a_campaign(how: dict[str, Any], settings_for: Callable[..., Settings], tmp_path: Path, books: Books) -> None:
    """FM-01: every process and command works over TLS, on both runners; all are mailed once, no output has a secret.

    A batch, a dead letter and a replay for each runner, in the group of the one before.
    """
    settings = settings_for(**how)
    load(books.conn, *directory(range(1, MEMBERS + 1), events=2))
    with Bidden(settings, tmp_path) as bidden:
        bidden.secrets.add(PASSWORD)
        bidden.run("migrate", "--json")
        bidden.dispatcher()
        for event, runner in enumerate(("confluent", "faust"), 1):
            _produce_poison(settings)
            worker = bidden.worker(runner)
            batch = bidden.invite("students", "--wait", event=event)["batch_id"]
            assert bidden.status(batch)["sent"] == MEMBERS
            assert bidden.run("replay", "--batch", str(batch), "--json").json == {"published": MEMBERS}
            (letter,) = [one for one in bidden.run("dlq", "list", "--json").lines if one["discarded_at"] is None]
            bidden.run("dlq", "discard", f"{letter['partition']}:{letter['offset']}", "--json")
            checks = bidden.run("doctor", "--json").lines
            assert all(line["ok"] for line in checks), checks
            worker.stop()
        moved = bidden.run("replay", "--from-beginning", "--json").json["partitions"]
        assert moved
        for runner in ("confluent", "faust"):
            bidden.worker(runner).ready().stop()
        for event in (1, 2):
            books.check(event)


def _produce_poison(settings: Settings) -> None:
    producer = Producer(producer_config(settings, "test"))
    producer.produce(settings.invitations_topic, b"poison", b"1")
    assert producer.flush(20) == 0


REFUSED: Final = ["password", "user", "mechanism", "no certificate", "another's certificate", "authority"]


@pytest.mark.parametrize("wrong", REFUSED)
def test_a_client_that_is_refused(
    wrong: str, cluster: Cluster, settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    """FM-32: exit 3, with the broker's address and what it said, and never a secret; `doctor` says the same."""
    how, words, advice = _refused(wrong, cluster)
    settings = settings_for(**how)
    with Bidden(settings, tmp_path) as bidden:
        bidden.secrets |= {PASSWORD, f"{PASSWORD}x"}
        commands = (["worker"], ["worker", "--runner", "faust"], ["dispatch"], ["migrate"])
        details: list[str] = []
        for process in [bidden.start(*words, "--json") for words in commands]:
            result = process.result()
            assert result.code == 3, process.log_tail()
            assert result.error["error"] == "unreachable"
            details.append(result.error["detail"])
        details += [line["detail"] for line in bidden.run("doctor", "--json", code=1).lines if line["check"] == "kafka"]
    assert len(details) == len(commands) + 1
    for detail in details:
        # TLS words one failure in more than one way, so the rest of the sentence may differ.
        assert how["kafka_bootstrap"] in detail, detail
        assert words in detail, detail
        assert advice in detail, detail


def _refused(wrong: str, cluster: Cluster) -> tuple[dict[str, Any], str, str]:
    user, certificate = cluster.add_user("ada"), cluster.add_certificate("bob")
    no_certificate = {name: value for name, value in certificate.items() if "cert" not in name and "key" not in name}
    stranger = trustme.CA()
    stranger.cert_pem.write_to_path(cluster.folder / "stranger-ca.pem")
    cert, key = cluster.issue("eve", authority=stranger)
    return {
        "password": (user | {"kafka_sasl_password": f"{PASSWORD}x"}, "invalid credentials", "_PASSWORD"),
        "user": (user | {"kafka_sasl_username": "nobody"}, "invalid credentials", "_USERNAME"),
        "mechanism": (user | {"kafka_sasl_mechanism": "PLAIN"}, "supported mechanisms: SCRAM-", "_MECHANISM"),
        "no certificate": (no_certificate, "certificate required", "BIDDEN_KAFKA_CERT_FILE"),
        "another's certificate": (
            certificate | {"kafka_cert_file": cert, "kafka_key_file": key},
            "certificate",
            "BIDDEN_KAFKA_CERT_FILE",
        ),
        "authority": (
            certificate | {"kafka_ca_file": cluster.folder / "stranger-ca.pem"},
            "certificate verify failed",
            "BIDDEN_KAFKA_CA_FILE",
        ),
    }[wrong]


def test_a_certificate_that_does_not_fit(
    cluster: Cluster, settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    """FM-32: every process exits 2 at start and names the setting; the site, too, which needs Kafka only later."""
    settings = settings_for(**cluster.add_certificate("bob") | {"kafka_key_password": f"{PASSWORD}x"})
    with Bidden(settings, tmp_path) as bidden:
        bidden.secrets |= {PASSWORD, f"{PASSWORD}x"}
        for words in (["worker"], ["worker", "--runner", "faust"], ["dispatch"], ["serve"], ["migrate"], ["doctor"]):
            error = bidden.run(*words, "--json", code=2).error
            assert (error["error"], error["field"]) == ("settings", "BIDDEN_KAFKA_KEY_PASSWORD"), error
