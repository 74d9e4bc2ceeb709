"""`python -m bench`: the tables."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import bulk_data, conditions, end_to_end, growth, pages, peers, scale, stages, throttled
from bench.environment import prepare
from bench.measure import calibrate
from bench.queues import measure as queues
from bench.throttling_server import Mode
from embedded.stack import Stack


def main() -> None:
    """Parses the arguments, measures on servers of its own, prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "part",
        nargs="?",
        default="pipeline",
        choices=["pipeline", "conditions", "growth", "queues", "pages", "scale", "throttled"],
        help="what is measured",
    )
    parser.add_argument("--members", type=int, nargs="+", default=[5_000, 50_000], help="sizes of the campaigns")
    parser.add_argument(
        "--rounds", type=int, default=20, help="how often each page is requested, or each queue measured"
    )
    parser.add_argument("--old-rows", type=int, default=2_000_000, help="conditions: old deliveries in the ledger")
    parser.add_argument("--send", type=int, default=200_000, help="growth: mails to send, of half the members at most")
    parser.add_argument("--only", default="", help="only pages, cases or peers whose name contains this")
    parser.add_argument("--quick", action="store_true", help="scale: 2,000 and 20,000 members, not ten times as many")
    parser.add_argument("--keep", type=Path, help="scale: a folder that keeps its databases for later runs")
    parser.add_argument("--runners", nargs="+", default=["confluent", "faust"], choices=["confluent", "faust"])
    parser.add_argument("--window", type=int, nargs="+", default=[100], help="BIDDEN_HANDOVER_WINDOW; a table for each")
    parser.add_argument("--latency-trials", type=int, default=50)
    parser.add_argument("--rate", type=float, default=14, help="throttled: mails a second that the server takes")
    parser.add_argument("--modes", nargs="+", default=["454", "421", "body"], choices=[mode.value for mode in Mode])
    parser.add_argument("--workers", type=int, default=2, help="throttled: how many")
    parser.add_argument("--closed", type=float, nargs=2, default=[20, 500], help="throttled: 452 from … to, in seconds")
    parser.add_argument("--skip", nargs="*", default=[], choices=["stages", "peers", "replay", "latency"])
    arguments = parser.parse_args()
    console = Console(width=150)
    with tempfile.TemporaryDirectory(prefix="bidden-bench-") as folder:
        Path(folder).chmod(0o711)
        if arguments.part == "scale":
            sizes = scale.QUICK_SIZES if arguments.quick else scale.SIZES
            scale.run(arguments.keep or Path(folder) / "home", sizes, arguments.only, console)
            return
        if arguments.part == "pages":
            with pages.database(Path(folder) / "home") as url:
                bulk_data.fill(url, bulk_data.MEMBERS)
                _pages(arguments, url, console)
            return
        with Stack(Path(folder) / "home") as stack:
            parts = {"throttled": _throttled, "conditions": _conditions, "queues": _queues, "growth": _growth}
            parts.get(arguments.part, _run)(arguments, stack, console)


def _conditions(arguments: argparse.Namespace, stack: Stack, console: Console) -> None:
    members = max(arguments.members)
    table = Table(title=f"One worker, {members:,} members, under conditions (calibration {calibrate():.3f} s)")
    for n, column in enumerate(conditions.COLUMNS):
        table.add_column(column, justify="right" if n else "left")
    for row in conditions.measure(stack, members, arguments.old_rows, arguments.only):
        table.add_row(*row)
    console.print(table)


def _growth(arguments: argparse.Namespace, stack: Stack, console: Console) -> None:
    growth.run(stack, arguments.members, arguments.send, arguments.only, console)


def _queues(arguments: argparse.Namespace, stack: Stack, console: Console) -> None:
    mails = max(arguments.members)
    table = Table(title=f"{mails:,} mails by task queues, {arguments.rounds} rounds in turn, medians")
    for n, column in enumerate(queues.COLUMNS):
        table.add_column(column, justify="right" if n else "left")
    for row in queues.measure(stack, mails, arguments.rounds, arguments.only):
        table.add_row(*row)
    console.print(table)


def _throttled(arguments: argparse.Namespace, stack: Stack, console: Console) -> None:
    table = Table(title=f"A server that takes {arguments.rate:g} mails a second, {arguments.workers} workers")
    for column in throttled.COLUMNS:
        table.add_column(column, justify="right")
    begin, end = arguments.closed
    for members in arguments.members:
        for mode in arguments.modes:
            done = throttled.campaign(
                prepare(stack, members),
                arguments.rate,
                Mode(mode),
                workers=arguments.workers,
                closed=lambda at: begin <= at < end,
                seconds=4 * members / arguments.rate + 1200,
            )
            table.add_row(
                done.mode,
                f"{done.mails:,}",
                f"{done.seconds:.0f}",
                f"{done.mails / done.seconds:.1f}",
                *(f"{n:,}" for n in (done.sent, done.failed, done.unknown, done.twice, done.throttled)),
                f"{done.wasted:.1f}",
                f"{done.connections:,}",
            )
            console.print(table)


def _pages(arguments: argparse.Namespace, url: str, console: Console) -> None:
    with pages.served(url) as client:
        table = Table(
            title=f"Pages, {bulk_data.MEMBERS:,} members, {arguments.rounds} requests each,"
            f" calibration {calibrate():.3f} s"
        )
        for column in ("kind", "page", "median ms", "p95 ms", "x anchor", "bytes"):
            table.add_column(column, justify="left" if column in ("kind", "page") else "right")
        anchor = None
        for row in pages.measure(url, client, arguments.rounds, arguments.only):
            anchor = anchor or row.median
            ratio = f"{row.median / anchor:.1f}"
            table.add_row(row.kind, row.name, f"{row.median:.1f}", f"{row.p95:.1f}", ratio, f"{row.size:,}")
        console.print(table)
        seconds, rows, size, grown = pages.export(client)
        console.print(
            f"CSV of a whole batch: {rows:,} rows, {size:,} bytes in {seconds:.1f} s; {grown:.0f} MB more memory"
        )
        console.print(f"calibration afterwards {calibrate():.3f} s")


def _run(arguments: argparse.Namespace, stack: Stack, console: Console) -> None:
    largest = max(arguments.members)
    base: float | None = None
    if "stages" not in arguments.skip:
        table = Table(title=f"Stages, one process, {largest:,} members (calibration {calibrate():.3f} s)")
        for column in ("stage", "unit", "per second"):
            table.add_column(column, justify="right" if column == "per second" else "left")
        for stage, unit, rate in stages.measure(prepare(stack, largest), largest):
            table.add_row(stage, unit, f"{rate:,.0f}")
        console.print(table)
    if "peers" not in arguments.skip:
        peer_environment = prepare(stack, 15)
        table = Table(title=f"The usual form, 1,000 mails (calibration {calibrate():.3f} s)")
        table.add_column("peer")
        table.add_column("mails/s", justify="right")
        base = peers.naive_loop(peer_environment, 1000, keep_connection=False)
        table.add_row("EmailMessage, a connection and a commit per mail", f"{base:,.0f}")
        kept = peers.naive_loop(peer_environment, 1000, keep_connection=True)
        table.add_row("the same on a kept connection", f"{kept:,.0f}")
        console.print(table)
    for window in arguments.window:
        console.print(_campaigns(arguments, stack, window, base))
    if "latency" not in arguments.skip:
        table = Table(title="One member on an idle worker: trigger to sink")
        for column in ("runner", "p50 ms", "worst ms", "calibration s"):
            table.add_column(column, justify="left" if column == "runner" else "right")
        for runner in arguments.runners:
            calibration = calibrate()
            found = end_to_end.latency(prepare(stack, 15), runner, arguments.latency_trials)
            table.add_row(runner, f"{end_to_end.p50(found):.1f}", f"{max(found):.1f}", f"{calibration:.3f}")
        console.print(table)


def _campaigns(arguments: argparse.Namespace, stack: Stack, window: int, base: float | None) -> Table:
    """A campaign of each size with each runner. `base`: mails a second of the usual form, if it was measured."""
    table = Table(title=f"End to end, one worker, window {window}: trigger to last outcome")
    for column in end_to_end.COLUMNS:
        table.add_column(column, justify="left" if column == "runner" else "right")
    for runner in arguments.runners:
        for members in arguments.members:
            measured = prepare(stack, members)
            result = end_to_end.campaign(measured, runner, members, BIDDEN_HANDOVER_WINDOW=str(window))
            replayed = "-" if "replay" in arguments.skip else f"{end_to_end.replay(measured, runner):,.0f}"
            table.add_row(
                runner,
                f"{members:,}",
                f"{result.mails:,}",
                f"{result.mails_per_second:,.0f}",
                "-" if base is None else f"{result.mails_per_second / base:.0f}",
                f"{sum(result.cpu.values()):.3f}",
                *(f"{result.cpu[name]:.3f}" for name in ("worker", "postgres", "kafka", "sink", "trigger")),
                f"{result.worker_mb:.0f}",
                replayed,
                f"{result.calibration:.3f}",
            )
    return table


if __name__ == "__main__":
    main()
