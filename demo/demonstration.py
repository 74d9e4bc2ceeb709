"""The demonstration: a chapter of London's size with every awkward case, one campaign, the audit; then a site."""

from __future__ import annotations

import io
import shutil
import sys
import threading
from pathlib import Path
from typing import Final

import orjson

from cli.commands.reports import audit_exit_code, show_audit
from cli.output import err, out, table, write_json
from cli.progress import watch
from cli.wiring import stop_on_signals
from config.clock import now
from db import planning, reports
from db.connect import connect
from db.directory import import_lines
from demo import site
from demo.generator import DEMO_EVENT_ID, generate
from demo.site import SignIn
from embedded.stack import Stack
from embedded.supervisor import Processes, prepare
from producers.dispatch import BatchPublisher
from producers.plan import plan
from schemas.directory_file import parse_lines
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON, RefusedError
from schemas.vocabulary import Audience

#: The chapter of the campaign's event, whose organiser can sign in.
_CHAPTER: Final = 1


def run(home: Path, members: int, *, as_json: bool, stay: bool) -> int:
    """One campaign from nothing to its audit, in a folder of its own; returns the exit code.

    With `stay` the servers and the site go on until SIGTERM or Ctrl-C.
    """
    stack = Stack(home)
    if stack.running_instance() is not None:
        raise RefusedError(f"a demonstration, or `bidden up`, is running in {home}: stop it first")
    for name in ("postgres", "kafka", "mail", "logs"):
        # Only what an earlier demonstration left: each one starts from nothing.
        shutil.rmtree(home / name, ignore_errors=True)
    err.print("[bold]1. real servers[/]")
    stack.start(lambda line: err.print(f"   {line}", markup=False))
    address = site.choose_address(home) if stay else None
    processes = Processes(stack.addresses, {"BIDDEN_BASE_URL": address} if address else None)
    try:
        code, people = _campaign(stack, processes, members, as_json=as_json)
        if address is not None:
            site.start(processes, address)
            _stay(processes, address, people)
        return code
    finally:
        processes.stop()
        stack.stop()


def _stay(processes: Processes, address: str, people: list[SignIn]) -> None:
    out.print()
    out.print(f"[bold]Open {address}[/]", highlight=False)
    for person, who in zip(people, ("an admin", "an organiser of London"), strict=True):
        out.print(f"   as {who}: {person.email} with the password {person.password}", highlight=False)
    out.print("Ctrl-C ends it.")
    stop = threading.Event()
    stop_on_signals(stop)
    processes.supervise(stop, lambda line: err.print(line, markup=False))


def _campaign(stack: Stack, processes: Processes, members: int, *, as_json: bool) -> tuple[int, list[SignIn]]:
    settings = prepare(stack.addresses)
    processes.add("dispatcher", "dispatch")
    processes.add("worker-1", "worker")
    with connect(settings.require_database(), application="bidden-demo") as conn:
        err.print("[bold]2. a directory[/] with every awkward case")
        lines = b"\n".join(orjson.dumps(line) for line in generate(members, now=now()))
        counts = import_lines(conn, parse_lines(io.BytesIO(lines)))
    err.print(f"   {counts['member']:,} members, {counts['subscription']:,} subscriptions, {counts['ban']:,} bans")
    with connect(settings.require_database(), application="bidden-demo", autocommit=True) as conn:
        err.print("[bold]3. invite[/] everyone")
        planned = plan(conn, event_id=DEMO_EVENT_ID, audience=Audience.EVERYONE, initiator="demo")
        assert planned.batch_id is not None
        BatchPublisher(settings, now).publish(conn, planned.batch_id)
        planning.analyse(conn)
        status = watch(conn, planned.batch_id, quiet=as_json or not sys.stderr.isatty())
        excluded = reports.exclusions(conn, planned.batch_id)
    with connect(settings.require_database(), application="bidden-demo") as conn:
        audit = reports.audit(conn, DEMO_EVENT_ID, Audience.EVERYONE)
    with connect(settings.require_database(), application="bidden-demo", autocommit=True) as conn:
        people = site.people_of_a_demonstration(conn, [_CHAPTER])
    mails = stack.mail.count()
    keys = stack.mail.delivery_keys()
    seconds = (status["completed_at"] - status["started_at"]).total_seconds()
    complete = status["sent"] == status["deliveries"] == mails == len(set(keys)) and audit_exit_code(audit) == EXIT_DONE
    if as_json:
        write_json(audit)
    else:
        table(
            "The campaign",
            ["#members invited", "#mails due", "#sent", "#mails at the sink", "#of them twice", "seconds", "#mails/s"],
            [
                [
                    status["planned"],
                    status["deliveries"],
                    status["sent"],
                    mails,
                    mails - len(set(keys)),
                    f"{seconds:.1f}",
                    round(status["sent"] / max(seconds, 0.001)),
                ]
            ],
        )
        table("Left out at planning", ["reason", "#members"], excluded.items())
        show_audit(audit)
        home = stack.addresses.home
        out.print(f"The mails: {home}/mail/mails.mbox (any mail program, or `less`)", markup=False)
        out.print(f"The log:   BIDDEN_HOME={home} bidden up      in one shell, and in another", markup=False)
        out.print(
            f"           BIDDEN_HOME={home} bidden log {planned.batch_id}   (or status, why, audit {DEMO_EVENT_ID})",
            markup=False,
        )
    return (EXIT_DONE if complete else EXIT_NEEDS_A_PERSON), people
