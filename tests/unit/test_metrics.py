"""The definitions of metrics: well named, bounded in their labels, and each shown by its processes alone."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from config import metrics
from config.metric_types import Definition, Sampled, Table
from db import checks
from db.ledger_transaction import outcome_row
from db.outcome_counts import count, reason_class
from schemas.outcomes import Failed, Retry, Sent, Unknown
from schemas.send_results import (
    REPLY_CLASSES,
    Accepted,
    Ambiguous,
    Lapsed,
    NotSent,
    Refused,
    SendResult,
    Throttled,
    Undecided,
    reply_class,
)

PROCESSES = (metrics.WORKER, metrics.DISPATCHER, metrics.WEB)
DEFINITIONS = list(metrics.TABLE.definitions.values())
#: The most series that the closed labels of one metric may make.
_MOST = 200


def shown(registry: CollectorRegistry) -> set[str]:
    """The names of our metrics, as a scrape has them."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if family.name.startswith(("bidden_", "messaging_"))
    }


@pytest.mark.parametrize("found", DEFINITIONS, ids=lambda found: found.name)
def test_a_definition_is_complete(found: Definition) -> None:
    """Name, unit and meaning; the name follows the field's rules."""
    assert re.fullmatch(r"(bidden|messaging)_[a-z]+(_[a-z]+)*", found.name)
    assert found.name.endswith("_total") == (found.kind == "counter")
    assert found.name.endswith("_seconds") == (found.unit == "seconds")
    assert found.unit
    assert len(found.meaning.split()) > 2
    assert found.processes
    assert set(found.processes) <= set(PROCESSES)


@pytest.mark.parametrize("found", DEFINITIONS, ids=lambda found: found.name)
def test_labels_are_bounded(found: Definition) -> None:
    """Each label has a closed set of short words, or a rule that no address and no name passes."""
    series = 1
    for label, values in found.labels.items():
        if values is None:
            rule = re.compile(metrics.RULES[label][0])
            for stranger in ("ada@example.com", "Ada Lovelace", "/batches/17", ""):
                assert not rule.fullmatch(stranger), label
        else:
            assert all(re.fullmatch(r"[a-z0-9_]{1,40}", value) for value in values)
            series *= len(values)
    assert series <= _MOST


def test_no_label_is_about_a_person() -> None:
    """No label is named after what identifies a member, an event or a batch."""
    labels = {label for found in DEFINITIONS for label in found.labels}
    assert not labels & {"member", "member_id", "email", "address", "domain", "event", "event_id", "batch", "batch_id"}


@pytest.mark.parametrize("process", PROCESSES)
def test_each_process_shows_its_own(process: str) -> None:
    """No process shows a number that another one knows; what is sampled and not known yet is absent."""
    expected = {found.name for found in DEFINITIONS if process in found.processes}
    assert shown(metrics.TABLE.registry(process)) == expected


def test_the_contract() -> None:
    """The names and labels that scripts rely on."""
    names = {
        "bidden_deliveries_total": ["outcome"],
        "bidden_dead_letters_total": [],
        "bidden_consumer_lag": ["partition"],
        "bidden_due_items": [],
        "bidden_oldest_due_seconds": [],
        "bidden_in_flight": [],
        "bidden_unknown": [],
        "bidden_ledger_transaction_seconds": [],
    }
    assert {name: [*metrics.TABLE.definitions[name].labels] for name in names} == names
    assert metrics.OUTCOMES == ("sent", "failed", "retry", "unknown", "skipped")


def test_the_audit_checks_exist() -> None:
    """Each check that the dispatcher samples is one of doctor's."""
    assert set(metrics.AUDIT_CHECKS) <= {name for name, _ in checks._CHECKS}


def test_a_sample_runs_out() -> None:
    """A gauge that is sampled is shown with its last values, and absent once they are too old."""
    now = [0.0]
    definition = Definition("bidden_x", "gauge", "x", "for a test", ("worker",), {"partition": None}, sampled=True)
    gauge = Sampled(definition, lambda: now[0])

    def values() -> dict[str, float]:
        (family,) = gauge.collect()
        return {sample.labels["partition"]: sample.value for sample in family.samples}

    assert values() == {}
    gauge.set({"0": 7, "1": 0}, keep_seconds=15)
    assert values() == {"0": 7.0, "1": 0.0}
    gauge.set({"1": 3}, keep_seconds=15)
    assert values() == {"1": 3.0}
    now[0] = 15.0
    assert values() == {}


def test_a_metric_is_defined_once() -> None:
    """A second definition of a name is a bug that must show at import."""
    table = Table()
    table.counter("bidden_x_total", "x", "for a test", "worker")
    with pytest.raises(AssertionError, match="bidden_x_total"):
        table.counter("bidden_x_total", "x", "for a test", "worker")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Accepted("250 ok"), "2xx"),
        (Refused("550 no such user", permanent=True), "5xx"),
        (Refused("451 later", permanent=False), "4xx"),
        (Throttled("421 too many"), "4xx"),
        (Throttled("554 quota"), "5xx"),
        (Undecided("421 closing"), "4xx"),
        (Undecided("connection to mail server 10.0.0.1:25 lost"), "none"),
        (Refused("the address cannot be used", permanent=True), "none"),
        (NotSent("454 TLS not available"), "4xx"),
        (NotSent(""), "none"),
        (Lapsed("its claim ended"), "none"),
        (Ambiguous("lost"), "none"),
    ],
)
def test_reply_classes(result: SendResult, expected: str) -> None:
    """The class of the reply that decided; none where no reply did."""
    assert reply_class(result) == expected
    assert expected in REPLY_CLASSES


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Sent("250 ok"), None),
        (Failed("550 no such user", "550 no such user"), "refused"),
        (Failed("refused 3 times in 24 h, the last time: 451 later", "451 later"), "given_up"),
        (Failed("the address cannot be used", "the address cannot be used"), "unmailable"),
        (Retry("451 later", 30.0, uses=1, reply="451 later"), "recipient"),
        (Retry("421 closing", 1.0, uses=0, reply="421 closing", refused=True), "undecided"),
        (Retry("421 too many", 1.0, uses=0, reply="421 too many"), "throttled"),
        (Retry("cannot reach mail server", 1.0, uses=0), "not_sent"),
        (Unknown("connection lost"), "no_reply"),
    ],
)
def test_reason_classes(outcome: Sent | Failed | Retry | Unknown, expected: str | None) -> None:
    """Every outcome of the policy has a class of reason, and no text of a server becomes one."""
    row = outcome_row(outcome, "ada@example.com")
    assert reason_class(row) == expected
    assert expected is None or expected in metrics.REASONS


def test_outcomes_are_counted_by_state_and_reason() -> None:
    """What was sent has no reason; others count under theirs."""
    others = [outcome_row(Unknown("lost")), outcome_row(Unknown("lost")), outcome_row(Retry("x", 1.0, uses=0))]
    assert count(5, others) == Counter({("sent", None): 5, ("unknown", "no_reply"): 2, ("retry", "not_sent"): 1})
    assert count(0, []) == Counter()
