"""All metrics of all processes: name, unit, labels and meaning. docs/reference/metrics.md is written from this table.

No label may hold an address, a name, or the number of a member, an event or a batch: each has a closed set of values,
or a rule that bounds it (`RULES`). It is counted whether anybody scrapes or not; a hot path counts once for many mails.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

from config.metric_types import Table
from schemas.send_results import REPLY_CLASSES
from schemas.vocabulary import BatchState, Reason

#: The kinds of process that have an endpoint.
WORKER: Final = "worker"
DISPATCHER: Final = "dispatcher"
WEB: Final = "web"

#: What a label may hold where its values are no closed set: a pattern for the whole of it, and its meaning.
RULES: Final[Mapping[str, tuple[str, str]]] = {
    "partition": (r"\d{1,4}", "number of a partition"),
    "messaging_destination_name": (r"[A-Za-z0-9._-]{1,150}\.invitations(\.dlq)?\.v1", "one of the two topics"),
    "version": (r"[0-9A-Za-z.+-]{1,40}", "that of the package"),
}
OUTCOMES: Final = ("sent", "failed", "retry", "unknown", "skipped")
#: Why a delivery was not sent, or not yet.
REFUSED, GIVEN_UP, UNMAILABLE, NOT_RECORDED = "refused", "given_up", "unmailable", "not_recorded"
RECIPIENT, UNDECIDED, THROTTLED, NOT_SENT = "recipient", "undecided", "throttled", "not_sent"
NO_REPLY, WORKER_STOPPED = "no_reply", "worker_stopped"
REASONS: Final = (
    REFUSED, GIVEN_UP, UNMAILABLE, NOT_RECORDED, RECIPIENT, UNDECIDED, THROTTLED, NOT_SENT, NO_REPLY, WORKER_STOPPED,
    *(str(reason) for reason in Reason),
)  # fmt: skip
POSTGRESQL, KAFKA, MAIL = SERVERS = ("postgresql", "kafka", "mail")
LOOK_UP, DELIVER, DEAD_LETTERS, PUBLISH = STEPS = ("look_up", "deliver", "dead_letters", "publish")
#: The checks of `bidden doctor` that hold batches, items, log and ledger against each other.
AUDIT_CHECKS: Final = (
    "planned_without_item", "logs_without_ledger", "entries_without_item", "settled_without_entry",
    "claims_without_batch",
)  # fmt: skip
OPEN_STATES: Final = (str(BatchState.RUNNING), str(BatchState.PAUSED))
#: Of a notification of a client's webhook, and of a refused sign-in.
WEBHOOK_RESULTS: Final = ("delivered", "retry", "given_up")
SIGN_IN_REFUSALS: Final = ("wrong", "throttled")

_MILLISECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DIALOGUES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)
_STEPS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)

TABLE: Final = Table()

# -- what becomes of mails --------------------------------------------------------------------------------------------
DELIVERIES: Final = TABLE.counter(
    "bidden_deliveries_total", "deliveries",
    "Outcomes that this worker has recorded in the ledger. `retry`: due again, whatever the reason; mails a second are "
    "the rate of `sent`",
    WORKER, outcome=OUTCOMES,
)  # fmt: skip
REASONS_OF_DELIVERIES: Final = TABLE.counter(
    "bidden_delivery_reasons_total", "deliveries",
    "The same without `sent`, by the class of the reason. Failed: `refused` for good, `given_up` after refusals, "
    "`unmailable` address or text, `not_recorded`. Retry: `recipient` refused, `undecided` about whom, `throttled`, "
    "`not_sent`. Unknown: `no_reply`, `worker_stopped`. Skipped: the reasons of the log",
    WORKER, outcome=OUTCOMES[1:], reason=REASONS,
)  # fmt: skip
DEAD_LETTERS_TOTAL: Final = TABLE.counter(
    "bidden_dead_letters_total", "messages", "Messages that this worker has put on the dead-letter topic", WORKER
)
REDRIVEN: Final = TABLE.counter(
    "bidden_dead_letters_redriven_total", "messages", "Dead letters that the site has put on their topic again", WEB
)
DEAD_LETTERS_WAITING: Final = TABLE.sampled(
    "bidden_dead_letters_waiting", "messages", "Dead letters that were neither redriven nor discarded", DISPATCHER
)
UNKNOWN: Final = TABLE.sampled(
    "bidden_unknown", "deliveries", "Deliveries of the ledger that are `unknown` now", DISPATCHER
)
AUDIT_IMBALANCE: Final = TABLE.sampled(
    "bidden_audit_imbalance", "rows",
    "Rows in which batches, items, log and ledger contradict each other, by the check of `bidden doctor`; all 0: "
    "every audit balances", DISPATCHER, check=AUDIT_CHECKS,
)  # fmt: skip

# -- what waits -------------------------------------------------------------------------------------------------------
LAG: Final = TABLE.sampled(
    "bidden_consumer_lag", "messages",
    "Messages of the partition that the group has yet to commit. A worker: of its own partitions",
    WORKER, DISPATCHER, partition=None,
)  # fmt: skip
DUE: Final = TABLE.sampled("bidden_due_items", "items", "Items that are due and not on the topic yet", DISPATCHER)
OLDEST_DUE: Final = TABLE.sampled(
    "bidden_oldest_due_seconds",
    "seconds",
    "For how long the oldest of them has been due; 0 if there is none",
    DISPATCHER,
)
OPEN_BATCHES: Final = TABLE.sampled(
    "bidden_open_batches", "batches", "Batches with items that are not settled", DISPATCHER, state=OPEN_STATES
)
OLDEST_BATCH: Final = TABLE.sampled(
    "bidden_oldest_open_batch_seconds", "seconds", "How long ago the oldest of them was started; 0 if there is none",
    DISPATCHER, state=OPEN_STATES,
)  # fmt: skip
PENDING: Final = TABLE.sampled(
    "bidden_pending_items", "items", "Items of theirs that are not settled", DISPATCHER, state=OPEN_STATES
)
COMMITTED: Final = TABLE.sampled(
    "bidden_committed_offset", "offset",
    "The group's committed offset: while it grows, workers make progress. Without the partitions that have none",
    DISPATCHER, partition=None,
)  # fmt: skip
WORKERS: Final = TABLE.sampled("bidden_workers", "workers", "Members of the consumer group", DISPATCHER)
DISPATCHERS: Final = TABLE.sampled("bidden_dispatchers", "processes", "Dispatchers that are connected", DISPATCHER)
SEND_WAIT: Final = TABLE.sampled(
    "bidden_send_wait_seconds",
    "seconds",
    "In how many seconds the sending rate, set or learned, lets the next mail pass; 0 for now",
    DISPATCHER,
)
WEBHOOKS_DUE: Final = TABLE.sampled(
    "bidden_webhooks_due",
    "notifications",
    "Notifications of clients' webhooks that are due and not delivered",
    DISPATCHER,
)

SOURCE_AGE: Final = TABLE.sampled(
    "bidden_source_age_seconds", "seconds",
    "How long ago the newest snapshot of the source began. Absent without a source, as the next three", DISPATCHER,
)  # fmt: skip
SOURCE_MAX_AGE: Final = TABLE.sampled(
    "bidden_source_max_age_seconds", "seconds",
    "How old it may be: with an older one nothing is claimed. Absent where its age does not matter", DISPATCHER,
)  # fmt: skip
SOURCE_SET_ASIDE: Final = TABLE.sampled(
    "bidden_source_set_aside", "lines", "Lines that it could not use, and those that refer to them", DISPATCHER
)
SOURCE_PLACING: Final = TABLE.sampled(
    "bidden_source_placing_seconds", "seconds",
    "For how long the oldest batch waits whose invitations the source is yet to get; 0: none waits. Absent where it "
    "gets none", DISPATCHER,
)  # fmt: skip

# -- the worker -------------------------------------------------------------------------------------------------------
IN_FLIGHT: Final = TABLE.gauge(
    "bidden_in_flight", "deliveries", "Deliveries that are claimed and not recorded: never more than the window", WORKER
)
WINDOW: Final = TABLE.gauge("bidden_window_size", "deliveries", "The window: `BIDDEN_HANDOVER_WINDOW`", WORKER)
WAITING: Final = TABLE.gauge(
    "bidden_waiting", "deliveries", "Deliveries that were polled and wait for their claim", WORKER
)
TRANSACTION: Final = TABLE.histogram(
    "bidden_ledger_transaction_seconds",
    "A transaction of the ledger that records outcomes and claims deliveries, dozens at a time", _MILLISECONDS, WORKER,
)  # fmt: skip
STEP: Final = TABLE.histogram(
    "bidden_step_seconds",
    "A step of a poll of up to 500 messages (`look_up`, `deliver`, `dead_letters`), or of a dispatcher's chunk of up "
    "to 1,000 (`publish`)", _STEPS, WORKER, DISPATCHER, step=STEPS,
)  # fmt: skip
SMTP_DIALOGUE: Final = TABLE.histogram(
    "bidden_smtp_dialogue_seconds",
    "From MAIL FROM to the verdict of a mail, by the class of the deciding reply; `none`: the connection was lost, or "
    "no reply came. `_count` counts the replies", _DIALOGUES, WORKER, reply=REPLY_CLASSES,
)  # fmt: skip
SMTP_CONNECTIONS: Final = TABLE.gauge(
    "bidden_smtp_connections", "connections", "Open connections to the mail server", WORKER
)
DISK_FREE: Final = TABLE.gauge(
    "bidden_state_free_bytes", "bytes", "Free space for the worker's journal, in `BIDDEN_STATE_DIR`", WORKER
)
DISK_SIZE: Final = TABLE.gauge("bidden_state_size_bytes", "bytes", "The size of that file system", WORKER)

# -- the dispatcher and the site --------------------------------------------------------------------------------------
LOST: Final = TABLE.counter(
    "bidden_lost_items_total", "items", "Items that were due again because the group will never read their message",
    DISPATCHER,
)  # fmt: skip
WEBHOOKS: Final = TABLE.counter(
    "bidden_webhooks_total", "notifications", "Attempts to notify a client's webhook", WEB, result=WEBHOOK_RESULTS
)
SIGN_INS_REFUSED: Final = TABLE.counter(
    "bidden_sign_ins_refused_total", "attempts", "Sign-ins with a password that were refused", WEB,
    reason=SIGN_IN_REFUSALS,
)  # fmt: skip

# -- servers and messages ---------------------------------------------------------------------------------------------
OUTAGES: Final = TABLE.counter(
    "bidden_outages_total", "outages", "Times that the process lost the server, and waited for it",
    WORKER, DISPATCHER, WEB, server=SERVERS,
)  # fmt: skip
AWAY: Final = TABLE.gauge(
    "bidden_server_away", "0 or 1", "Whether the process waits for the server now", WORKER, DISPATCHER, WEB,
    server=SERVERS,
)  # fmt: skip
CERTIFICATE: Final = TABLE.sampled(
    "bidden_certificate_expires_timestamp_seconds", "seconds",
    "When a certificate ends, in Unix time: the mail server's at the last connection, the authority's in "
    "`BIDDEN_KAFKA_CA_FILE`",
    WORKER, DISPATCHER, server=(KAFKA, MAIL),
)  # fmt: skip
#: Names and labels as OpenTelemetry's semantic conventions have them for messaging.
MESSAGES_SENT: Final = TABLE.counter(
    "messaging_client_sent_messages_total", "messages", "Messages that the brokers acknowledged",
    WORKER, DISPATCHER, WEB, messaging_system=("kafka",), messaging_destination_name=None,
)  # fmt: skip
MESSAGES_CONSUMED: Final = TABLE.counter(
    "messaging_client_consumed_messages_total", "messages", "Messages that were polled",
    WORKER, messaging_system=("kafka",), messaging_destination_name=None,
)  # fmt: skip
PROCESS: Final = TABLE.histogram(
    "messaging_process_duration_seconds", "From the poll to the moment when all of it may be acknowledged", _STEPS,
    WORKER, messaging_system=("kafka",), messaging_destination_name=None,
)  # fmt: skip
SAMPLES_FAILED: Final = TABLE.counter(
    "bidden_samples_failed_total", "attempts", "Samples or probes that failed: what they would have set is absent",
    WORKER, DISPATCHER, WEB, server=SERVERS,
)  # fmt: skip
BUILD: Final = TABLE.gauge("bidden_build_info", "1", "The version that runs", WORKER, DISPATCHER, WEB, version=None)


def count_outcomes(outcomes: Mapping[tuple[str, str | None], int]) -> None:
    """Recorded outcomes by outcome and class of reason; None where there is no reason."""
    for (outcome, reason), count in outcomes.items():
        DELIVERIES.labels(outcome).inc(count)
        if reason is not None:
            REASONS_OF_DELIVERIES.labels(outcome, reason).inc(count)


def show_version() -> None:
    """Set the version of the process."""
    BUILD.labels(version("bidden")).set(1)
