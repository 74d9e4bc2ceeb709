"""The mail sink: an SMTP server that delivers nothing and stores everything, in a process of its own.

    python -m embedded.mail_sink --port 2525 --folder mails [--rules rules.json]

A mail that got the reply 250 is in `mails/mails.mbox` (see `mail_store`), even if the sink is killed right after. The
sink offers PIPELINING, 8BITMIME, SMTPUTF8 and SIZE; with `--tls-cert` and `--tls-key` also STARTTLS; with
`--auth USER:PASSWORD` it requires AUTH. SIGTERM and Ctrl-C stop it.

`--rules` names a JSON file that makes the sink refuse, delay or drop on purpose (see `mail_rules`); it is read again
when it changes. For example, to refuse one address permanently and another one twice:

    [{"do": "refuse_recipient", "recipient": "gone@example.org"},
     {"do": "refuse_recipient", "recipient": "busy@example.org", "reply": "451 4.7.1 Try later", "times": 2}]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
from pathlib import Path

from config import collector, standard_streams
from config.stop_signals import stop_signals
from embedded.mail_rules import Rules
from embedded.mail_store import MailStore
from embedded.process import write_atomically
from embedded.smtp_sink import Sink, SmtpServerSession

BACKLOG = 1000


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m embedded.mail_sink",
        description="An SMTP server that delivers nothing and stores everything.",
        epilog="example: python -m embedded.mail_sink --port 2525 --folder mails",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--folder", type=Path, required=True, help="where the mails are stored")
    parser.add_argument("--rules", type=Path, help="JSON file with rules to refuse, delay or drop")
    parser.add_argument("--max-size", type=int, default=50_000_000, help="largest mail, bytes (default: %(default)s)")
    parser.add_argument("--tls-cert", type=Path, help="certificate (PEM); with --tls-key: offer STARTTLS")
    parser.add_argument("--tls-key", type=Path, help="its key (PEM)")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="require these credentials")
    parser.add_argument(
        "--ready-file", type=Path, help="file for the process id, written once connections are accepted"
    )
    return parser.parse_args(argv)


async def serve(options: argparse.Namespace) -> None:
    """Listens until a signal stops it."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in stop_signals():
        loop.add_signal_handler(number, stopped.set)
    tls = None
    if options.tls_cert is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.tls_cert, options.tls_key)
    user, _, password = (options.auth or "").partition(":")
    sink = Sink(
        store=MailStore(options.folder),
        rules=Rules(options.rules),
        max_size=options.max_size,
        tls=tls,
        credentials=(user, password) if options.auth else None,
    )
    server = await loop.create_server(
        lambda: SmtpServerSession(sink), options.host, options.port, backlog=BACKLOG, reuse_address=True
    )
    collector.settle()
    if options.ready_file is not None:
        write_atomically(options.ready_file, str(os.getpid()))
    await stopped.wait()
    server.close()
    sink.store.close()


def main() -> int:
    """Runs the sink; returns the exit code."""
    standard_streams.protect()
    options = parse_arguments()
    try:
        import uvloop

        uvloop.run(serve(options))
    except OSError as error:
        sys.stderr.write(f"mail sink: {error}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
