"""procrastinate: the queue is a table of PostgreSQL, whose rows are the result. Asynchronous, 50 tasks at once.

It sends over our own sender, because an asynchronous task can: ten kept, pipelined connections.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from procrastinate import App, PsycopgConnector

from bench.queues import mailer
from bench.stages import sample_mail, sample_template
from mail.sender import send
from mail.smtp.sender import SmtpSender
from schemas.send_results import Accepted

CONCURRENCY = 50

app = App(connector=PsycopgConnector(conninfo=mailer.DATABASE, min_size=4, max_size=10))
_template = sample_template()
_sender = SmtpSender(mailer.SMTP, connections=10)


@app.task(name="invite")  # type: ignore[untyped-decorator] # not installed for checks
async def invite(member: int) -> None:
    """A mail."""
    result = await send(_sender, sample_mail(_template, member, datetime.now(UTC)))
    if not isinstance(result, Accepted):
        raise RuntimeError(f"not sent: {result}")  # noqa: TRY004 # a result, no argument


async def _enqueue(members: range) -> None:
    async with app.open_async():
        for start in range(members.start, members.stop, 1000):
            chunk = range(start, min(start + 1000, members.stop))
            await invite.batch_defer_async(*({"member": member} for member in chunk))


def enqueue(members: range) -> None:
    """Jobs in chunks of a thousand."""
    asyncio.run(_enqueue(members))


async def _main() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY, wait=True, delete_jobs="never")


async def _apply_schema() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


def apply_schema() -> None:
    """Its tables."""
    asyncio.run(_apply_schema())


if __name__ == "__main__":
    asyncio.run(_main())
