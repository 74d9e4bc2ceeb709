"""What monitors see of real processes: metrics that agree with the ledger, and health that is true."""

from __future__ import annotations

import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from config.kafka import producer_config
from config.metrics import OUTCOMES
from config.settings import Settings
from embedded import ports
from schemas.errors import EXIT_NO_PROGRESS
from tests.acceptance.books import Books, directory
from tests.acceptance.monitors import Monitor
from tests.acceptance.processes import Bidden, eventually

pytestmark = pytest.mark.slow

MEMBERS = 300
RUNNERS = ["confluent", "faust"]


def put_poison(settings: Settings, count: int) -> None:
    """Messages that cannot be decoded."""
    producer = Producer(producer_config(settings, "test"))
    for number in range(count):
        producer.produce(settings.invitations_topic, b"nonsense", str(number).encode())
    assert producer.flush(10) == 0


def counted(monitor: Monitor) -> Counter[str]:
    """The worker's outcomes."""
    found = monitor.metrics()
    return Counter({name: int(found[f'bidden_deliveries_total{{outcome="{name}"}}']) for name in OUTCOMES})


def sampled(monitor: Monitor, name: str) -> list[float]:
    """The values of a gauge with labels, as sampled last."""
    return [value for key, value in monitor.metrics().items() if key.startswith(name)]


@pytest.mark.parametrize("runner", RUNNERS)
def test_metrics_agree_with_the_ledger(bidden: Bidden, books: Books, settings: Settings, runner: str) -> None:
    """Sent, failed, retried and skipped deliveries, dead letters, what waits: all as ledger and topics have it."""
    of_dispatcher, of_worker = Monitor(), Monitor()
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    bidden.start("dispatch", **of_dispatcher.env)
    of_dispatcher.wait("/readyz", 200)
    batch = bidden.invite()["batch_id"]
    # After planning, and before anything is claimed.
    bidden.import_lines(*({"type": "ban", "id": n, "member_id": n, "permanent": True} for n in (1, 2, 3)))
    books.sink.set_rules(
        [
            {"do": "refuse_recipient", "recipient": "m5@*"},
            {"do": "refuse_recipient", "recipient": "m6@*", "reply": "451 4.2.1 Mailbox busy", "times": 2},
        ]
    )
    put_poison(settings, 4)
    of_dispatcher.wait_value("bidden_pending_items", MEMBERS, state="running")
    eventually(lambda: sum(sampled(of_dispatcher, "bidden_consumer_lag")) > 0, "a lag")
    worker = bidden.worker(runner, **of_worker.env)
    books.wait_completed(batch)
    states = books.states()
    assert states == {"sent": MEMBERS - 4, "failed": 1, "skipped": 3}
    expected = Counter({"sent": MEMBERS - 4, "failed": 1, "skipped": 3, "retry": 2})
    # The ledger is written before it is counted.
    eventually(lambda: counted(of_worker) == expected, "the counters agree with the ledger")
    of_worker.wait_value("bidden_dead_letters_total", 4)
    of_worker.wait_value("bidden_in_flight", 0)
    found = of_worker.metrics()
    reasons = {k: v for k, v in found.items() if k.startswith("bidden_delivery_reasons_total")}
    assert reasons == {
        'bidden_delivery_reasons_total{outcome="failed",reason="refused"}': 1,
        'bidden_delivery_reasons_total{outcome="retry",reason="recipient"}': 2,
        'bidden_delivery_reasons_total{outcome="skipped",reason="banned"}': 3,
    }
    replies = {c: found[f'bidden_smtp_dialogue_seconds_count{{reply="{c}"}}'] for c in ("2xx", "4xx", "5xx", "none")}
    assert replies == {"2xx": MEMBERS - 4, "4xx": 2, "5xx": 1, "none": 0}
    assert 0 < found["bidden_ledger_transaction_seconds_count"] < MEMBERS
    assert found["bidden_window_size"] == settings.handover_window
    assert found["bidden_state_free_bytes"] > 0
    topic = f'{{messaging_destination_name="{settings.invitations_topic}",messaging_system="kafka"}}'
    # Poison and retries were messages, too.
    assert found[f"messaging_client_consumed_messages_total{topic}"] >= MEMBERS + 4 + 2
    for name, value in (
        ("bidden_due_items", 0),
        ("bidden_oldest_due_seconds", 0),
        ("bidden_unknown", 0),
        ("bidden_dead_letters_waiting", 4),
        ("bidden_workers", 1),
        ("bidden_dispatchers", 1),
    ):
        of_dispatcher.wait_value(name, value)
    for partition in range(settings.partitions):
        of_dispatcher.wait_value("bidden_consumer_lag", 0, partition=str(partition))
        of_worker.wait_value("bidden_consumer_lag", 0, partition=str(partition))
    of_dispatcher.wait_value("bidden_open_batches", 0, state="running")
    eventually(lambda: set(sampled(of_dispatcher, "bidden_audit_imbalance")) == {0}, "a balanced audit")
    assert "m5@" not in of_worker.ask("/metrics").text
    worker.stop()
    books.check(failed=1)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_worker_whose_mail_server_is_away(bidden: Bidden, books: Books, runner: str) -> None:
    """FM-30: alive and not ready, idle or not, while the mail server is away; ready again when it is back."""
    monitor = Monitor()
    bidden.import_lines(*directory(range(1, 21)))
    bidden.dispatcher()
    worker = bidden.worker(runner, **monitor.env)
    monitor.wait("/livez", 200)
    monitor.wait("/readyz", 200)
    # Idle: nobody has tried to send.
    books.sink.stop()
    monitor.wait("/readyz", 503)
    assert monitor.reasons("/readyz") == {"mail": "the mail server is away"}
    assert (monitor.code("/livez"), monitor.value("bidden_server_away", server="mail")) == (200, 1)
    batch = bidden.invite()["batch_id"]
    eventually(lambda: bool(worker.logged("waiting for the mail server")), "it waits for the mail server")
    assert (monitor.code("/livez"), monitor.code("/readyz")) == (200, 503)
    # Two witnesses, one outage.
    assert monitor.value("bidden_outages_total", server="mail") == 1
    books.sink.start()
    books.wait_completed(batch)
    monitor.wait("/readyz", 200)
    worker.stop()
    books.check()


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_worker_that_hangs_is_not_alive(bidden: Bidden, books: Books, runner: str) -> None:
    """FM-28: a blocked event loop: the endpoint says so before the watchdog ends the worker."""
    monitor = Monitor()
    bidden.import_lines(*directory(range(1, 101)))
    bidden.dispatcher()
    worker = bidden.worker(runner, BIDDEN_CRASH_AT="outcome.begun:3:hang", **monitor.env)
    monitor.wait("/readyz", 200)
    bidden.invite()
    monitor.wait("/livez", 503)
    assert worker.running
    assert monitor.reasons("/livez")["watchdog"].startswith("no progress despite work for ")
    assert monitor.code("/readyz") == 503
    assert worker.end(60) == EXIT_NO_PROGRESS
    assert monitor.code("/livez") is None


def test_a_worker_that_is_stopped_does_not_answer(bidden: Bidden) -> None:
    """FM-35: SIGSTOP: no answer in time, which is as good as not alive; after SIGCONT it is alive again."""
    monitor = Monitor()
    worker = bidden.worker(**monitor.env)
    monitor.wait("/readyz", 200)
    worker.signal(signal.SIGSTOP)
    monitor.wait("/livez", None)
    worker.signal(signal.SIGCONT)
    monitor.wait("/livez", 200)
    worker.stop()


def test_a_stopping_worker_is_not_ready(bidden: Bidden, books: Books) -> None:
    """FM-13: alive to its end, so that nobody kills it, and not ready."""
    monitor = Monitor()
    bidden.import_lines(*directory(range(1, 11)))
    bidden.dispatcher()
    worker = bidden.worker(**monitor.env)
    monitor.wait("/readyz", 200)
    books.slow(8)
    bidden.invite()
    eventually(lambda: (monitor.value("bidden_in_flight") or 0) > 0, "mails are in flight")
    worker.signal(signal.SIGTERM)
    monitor.wait("/readyz", 503)
    assert monitor.reasons("/readyz") == {"stop": "is stopping"}
    assert monitor.code("/livez") == 200
    assert worker.end() == 0


def test_hard_scrapes_change_nothing(bidden: Bidden, books: Books) -> None:
    """A monitor that asks as fast as it can, all the time: every mail goes out once, and every scrape is answered."""
    monitors = [Monitor(), Monitor()]
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    dispatcher = bidden.start("dispatch", **monitors[0].env)
    worker = bidden.worker(**monitors[1].env).ready()
    for monitor in monitors:
        monitor.wait("/readyz", 200)
    batch = bidden.invite()["batch_id"]
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda n: monitors[n % 2].code("/metrics"), range(100)))
        assert codes == [200] * 100
        books.wait_completed(batch)
    # The endpoint writes the metrics out only twice a second: its answer may be older than the end of the batch.
    monitors[1].wait_value("bidden_deliveries_total", MEMBERS, outcome="sent")
    for process in (dispatcher, worker):
        process.stop()
    books.check()


def test_the_dispatcher_and_the_site(bidden: Bidden) -> None:
    """Each has an endpoint; the site counts refused sign-ins, without a name."""
    of_dispatcher, of_site = Monitor(), Monitor()
    dispatcher = bidden.start("dispatch", **of_dispatcher.env)
    port = ports.choose({"site": None}, {})["site"]
    site = bidden.start("serve", "--port", str(port), **of_site.env)
    for monitor in (of_dispatcher, of_site):
        monitor.wait("/readyz", 200)
        assert monitor.code("/livez") == 200
    origin = {"origin": f"http://127.0.0.1:{port}", "sec-fetch-site": "same-origin"}
    form = {"email": "ada@bidden.example", "password": "wrong"}
    for _ in range(2):
        assert httpx.post(f"http://127.0.0.1:{port}/sign-in", data=form, headers=origin).status_code == 403
    of_site.wait_value("bidden_sign_ins_refused_total", 2, reason="wrong")
    assert "ada" not in of_site.ask("/metrics").text
    assert of_site.value("bidden_due_items") is None
    for process in (dispatcher, site):
        process.stop()


def test_without_a_port_nothing_listens(bidden: Bidden) -> None:
    """A worker without the setting has no listening socket."""
    import psutil

    worker = bidden.worker().ready()
    listening = [c for c in psutil.Process(worker.popen.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening == []
    worker.stop()


@pytest.mark.parametrize("command", [("worker",), ("dispatch",), ("serve", "--port", "0")], ids=lambda c: c[0])
def test_a_wrong_port_or_host_is_refused(bidden: Bidden, command: tuple[str, ...]) -> None:
    """Exit 2, by the setting's name: a taken port, another machine's address, a number that is no port."""

    def refused(**env: str) -> Any:
        return bidden.run(*command, "--json", code=2, env=env).error

    with socket.create_server(("127.0.0.1", 0)) as taken:
        error = refused(BIDDEN_METRICS_PORT=str(taken.getsockname()[1]))
    assert (error["error"], error["field"]) == ("settings", "BIDDEN_METRICS_PORT")
    assert "in use" in error["detail"]
    port = Monitor().env
    assert refused(BIDDEN_METRICS_HOST="192.0.2.1", **port)["field"] == "BIDDEN_METRICS_HOST"
    for text in ("0", "70000", "http"):
        assert refused(BIDDEN_METRICS_PORT=text)["field"] == "BIDDEN_METRICS_PORT"


def test_up_refuses_a_taken_port(bidden: Bidden) -> None:
    """`bidden up` gives each process a port: the first that is taken is named before any server starts."""
    first = ports.choose({"monitors": None}, {})["monitors"]
    with socket.create_server(("127.0.0.1", first + 2)):
        env = {"BIDDEN_METRICS_PORT": str(first)}
        error = bidden.run("up", "--workers", "1", "--json", code=2, env=env).error
    assert error["field"] == "BIDDEN_METRICS_PORT"
    assert str(first + 2) in error["detail"]
