"""Commands of a campaign: `invite`, `dispatch`, `worker`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from cli.options import DATABASE, KAFKA, WORKER, environment, identity, json_logs_option, json_option
from cli.output import err, out, reasons, write_json
from cli.progress import watch
from cli.wiring import build_worker, stop_on_signals
from config.clock import now
from config.driver_errors import translate_error
from config.startup import load
from mail.check import check_mail_server
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON


@click.command(epilog=environment(DATABASE, KAFKA, ("BIDDEN_UNKNOWN_POLICY",)))
@identity("event")
@click.option("--audience", required=True, metavar="students|coaches|everyone", help="Whom to invite.")
@click.option("--dry-run", is_flag=True, help="Say who would be invited and why others would not; write nothing.")
@click.option("--by", "initiator", default="System", show_default=True, help="Who pressed the button.")
@click.option("--key", help="Idempotency key: the same key again returns the first batch.")
@click.option("--wait", is_flag=True, help="Wait for the batch to end; exit 1 if it holds failed or unknown.")
@json_option
def invite(event: int, audience: str, dry_run: bool, initiator: str, key: str | None, wait: bool, as_json: bool) -> int:
    """Plan the invitations to EVENT and publish them.

    Example: bidden invite 42 --audience students --dry-run
    """
    from db import planning
    from db.connect import connect
    from producers.dispatch import BatchPublisher
    from producers.plan import parse_audience, plan
    from producers.topics import Topics

    settings = load()
    wanted = parse_audience(audience)
    if not dry_run:
        # Before anything is planned: a batch must not come to be where nothing could be published.
        Topics(settings).check_reachable()
        publisher = BatchPublisher(settings, now)
    with connect(settings.require_database(), application="bidden-invite", autocommit=True) as conn:
        planned = plan(
            conn,
            event_id=event,
            audience=wanted,
            initiator=initiator,
            key=key,
            policy=settings.unknown_policy,
            dry_run=dry_run,
        )
        with _planned_already(planned.batch_id):
            if planned.batch_id is not None and not planned.already_triggered:
                published = publisher.publish(conn, planned.batch_id)
                planning.analyse(conn)
                if published < planned.planned:
                    left = planned.planned - published
                    err.print(f"{left:,} items wait for a dispatcher: is `bidden dispatch` running?")
            ended = None
            if wait and planned.batch_id is not None:
                ended = watch(conn, planned.batch_id, quiet=as_json)
        if as_json:
            result = planned.as_dict()
            if ended is not None:
                result["state"] = ended["state"]
            write_json(result)
        else:
            verb = "would be invited" if dry_run else "planned"
            out.print(
                f"event {event}, {wanted}: [bold]{planned.planned:,}[/] members {verb} "
                f"({planned.deliveries:,} mails); left out: {reasons(planned.excluded)}"
            )
            if planned.batch_id is not None:
                again = " (triggered before with this key)" if planned.already_triggered else ""
                out.print(f"batch {planned.batch_id}{again}: `bidden status {planned.batch_id}`")
        if ended is not None:
            return EXIT_NEEDS_A_PERSON if ended["failed"] or ended["unknown"] else EXIT_DONE
    return EXIT_DONE


@contextmanager
def _planned_already(batch_id: int | None) -> Iterator[None]:
    """An outage after the plan undoes nothing of it, and whoever triggered it must know."""
    try:
        yield
    except Exception as error:
        known = translate_error(error)
        if known is None or batch_id is None:
            raise
        raise type(known)(
            f"batch {batch_id} is planned, and dispatchers go on with it: do not trigger it again. {known.detail}"
        ) from error


@click.command(epilog=environment(DATABASE, KAFKA))
@json_logs_option
def dispatch(as_json: bool) -> None:
    """Publish whatever is due, until stopped. Run as many as you like.

    Example: bidden dispatch
    """
    from db.connect import connect
    from producers.dispatch import Dispatcher
    from producers.topics import Topics

    settings = load(logs_as_json=as_json)
    connect(settings.require_database()).close()
    Topics(settings).check_reachable()
    stop = threading.Event()
    stop_on_signals(stop)
    Dispatcher(settings, now, time.monotonic, stop).run()


@click.command(epilog=environment(DATABASE, KAFKA, WORKER))
@click.option(
    "--runner",
    type=click.Choice(["confluent", "faust"]),
    default="confluent",
    show_default=True,
    help="Which stream library feeds the steps. All workers of a group use the same one.",
)
@json_logs_option
def worker(runner: str, as_json: bool) -> int:
    """Deliver what is on the topic, as one member of the consumer group, until stopped.

    SIGTERM and Ctrl-C finish what is in flight and exit 0.

    Example: bidden worker
    """
    from db.connect import connect
    from producers.topics import Topics

    settings = load(logs_as_json=as_json)
    settings.require_smtp()
    connect(settings.require_database()).close()
    topics = Topics(settings)
    topics.check_reachable()
    topics.require_id()
    asyncio.run(check_mail_server(settings))
    if runner == "confluent":
        from streams.runners.confluent import ConfluentRunner

        return ConfluentRunner(settings, lambda heartbeat: build_worker(settings, heartbeat)).run()
    from streams.runners.faust import run

    return run(settings, lambda heartbeat: build_worker(settings, heartbeat))


COMMANDS: list[click.Command] = [invite, dispatch, worker]
