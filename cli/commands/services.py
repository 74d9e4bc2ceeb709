"""Processes that run until they are stopped: `dispatch`, `worker`, `serve`."""

from __future__ import annotations

import asyncio
import copy
import time

import click

from cli.monitors import open_endpoint
from cli.options import (
    DATABASE_SETTINGS,
    KAFKA_SETTINGS,
    MONITORING_SETTINGS,
    RATE_SETTINGS,
    SITE_SETTINGS,
    WORKER_SETTINGS,
    environment,
    json_logs_option,
)
from cli.rights import require_rights
from cli.runners import require_same_runner
from cli.wiring import build_worker
from config import collector, tracing
from config.clock import now
from config.rights import Process
from config.startup import load
from config.stop_signals import stop_on_signals


@click.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS, RATE_SETTINGS, MONITORING_SETTINGS))
@json_logs_option
def dispatch(as_json: bool) -> None:
    """Publish due items of all batches, until stopped.

    Any number of dispatchers may run.

    Example: bidden dispatch
    """
    from config.health import HEALTH
    from db.connect import connect
    from db.retention import Retention
    from monitoring.sending import permitted
    from producers.decisions import DecisionsLeft
    from producers.dispatch import Dispatcher
    from producers.topics import Topics

    settings = load(logs_as_json=as_json)
    tracing.start("bidden-dispatcher")
    open_endpoint("dispatcher", settings)
    connect(settings.require_database()).close()
    topics = Topics(settings)
    topics.check_reachable()
    require_rights(settings, Process.DISPATCHER)
    topics.require_compacted()
    stop = stop_on_signals()
    retention = Retention(settings.log_retention_days * 86_400.0, time.monotonic)
    chores = [DecisionsLeft(time.monotonic).apply_some, retention.run_chunk]
    allowed = permitted(settings.send_rates, time.monotonic)
    dispatcher = Dispatcher(settings, now, time.monotonic, stop, permitted=allowed, chores=chores)
    HEALTH.lives_by("dispatcher", dispatcher.why_not_alive)
    HEALTH.ready_by("stop", lambda: "is stopping" if stop.is_set() else None)
    collector.settle()
    HEALTH.started()
    dispatcher.run()


@click.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS, WORKER_SETTINGS, MONITORING_SETTINGS))
@click.option(
    "--runner",
    type=click.Choice(["confluent", "faust"]),
    default="confluent",
    show_default=True,
    help="The library that consumes the topic; the same for all workers of a group.",
)
@json_logs_option
def worker(runner: str, as_json: bool) -> int:
    """Send the mails of the topic, as a member of the consumer group.

    Runs until stopped: after SIGTERM, Ctrl-C or SIGHUP it finishes the mails in flight and exits with 0.

    Example: bidden worker
    """
    from config import ledger_topics
    from db.connect import connect
    from db.restores import refuse_restored
    from mail.check import check_mail_server
    from producers.topics import Topics

    settings = load(logs_as_json=as_json)
    tracing.start("bidden-worker")
    settings.require_smtp()
    open_endpoint("worker", settings)
    with connect(settings.require_database()) as conn:
        topics = Topics(settings)
        topics.check_reachable()
        require_rights(settings, Process.WORKER)
        topics.require_id()
        require_same_runner(topics, settings.group, runner)
        refuse_restored(conn, ledger_topics.newest(settings))
    asyncio.run(check_mail_server(settings))
    if runner == "confluent":
        from streams.runners.confluent import ConfluentRunner

        return ConfluentRunner(settings, lambda heartbeat: build_worker(settings, heartbeat)).run()
    from streams.runners.faust import run

    return run(settings, lambda heartbeat: build_worker(settings, heartbeat))


@click.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS, SITE_SETTINGS, MONITORING_SETTINGS))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65_535), help="The port; 0 for any free one."
)
@click.option("--links/--no-links", default=True, show_default=True, help="Serve the pages behind the links in mails.")
@json_logs_option
def serve(host: str, port: int, links: bool, as_json: bool) -> int:
    """Serve the site, the HTTP API, and the links in mails.

    Runs until stopped. Set BIDDEN_BASE_URL to its public address, and put a TLS proxy in front of it.

    Example: bidden serve --port 8000
    """
    from db.connect import connect
    from web import server

    settings = load(logs_as_json=as_json)
    tracing.start("bidden-web")
    open_endpoint("web", settings)
    connect(settings.require_database()).close()
    require_rights(settings, Process.WEB, kafka=False)
    return server.serve(settings, host, port, with_links=links)


def _alias(command: click.Command, name: str) -> click.Command:
    """The same command by another name."""
    alias = copy.copy(command)
    alias.name = name
    alias.short_help = f"Alias of `{command.name}`."
    return alias


COMMANDS: list[click.Command] = [dispatch, worker, serve, _alias(serve, "admin")]
