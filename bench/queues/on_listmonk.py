"""listmonk: a newsletter server in Go that keeps a position in its list, and no row for each mail.

BENCH_LISTMONK names a checkout of it in which `go build -o listmonk ./cmd` was run; its site is not built.
Ten connections, as many senders, no limit of its own on the rate, lists of a thousand at a time.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.types.json import Jsonb

from bench.queues import mailer

CHECKOUT = Path(os.environ.get("BENCH_LISTMONK", "."))
_CONNECTIONS = 10
#: As large as our mails.
_BODY = "<p>Dear {{ .Subscriber.Name }},</p>" + "<p>You are invited to the next workshop.</p>" * 60


def enqueue(members: range) -> None:
    """A list of these subscribers and a campaign that runs."""
    with psycopg.connect(mailer.DATABASE) as conn:
        listed = _one(
            conn,
            "INSERT INTO lists (uuid, name, type, optin) VALUES (%s, 'bench', 'private', 'single') RETURNING id",
            uuid.uuid4(),
        )
        conn.execute(
            "INSERT INTO subscribers (uuid, email, name)"
            " SELECT gen_random_uuid(), 'm' || n || '@members.example', 'Member ' || n"
            " FROM generate_series(%s::int, %s::int) n",
            (members.start, members.stop - 1),
        )
        conn.execute(
            "INSERT INTO subscriber_lists (subscriber_id, list_id, status) SELECT id, %s, 'confirmed' FROM subscribers"
            " WHERE id NOT IN (SELECT subscriber_id FROM subscriber_lists)",
            (listed,),
        )
        campaign = _one(
            conn,
            "INSERT INTO campaigns (uuid, name, subject, from_email, body, content_type, messenger, status)"
            " VALUES (%s, 'bench', 'Invitation', 'bidden@bidden.example', %s, 'html', 'email', 'running')"
            " RETURNING id",
            uuid.uuid4(),
            _BODY,
        )
        conn.execute("INSERT INTO campaign_lists (campaign_id, list_id) VALUES (%s, %s)", (campaign, listed))
        conn.execute("ANALYZE")


def missing() -> str | None:
    """What it needs and is not there."""
    return None if (CHECKOUT / "listmonk").is_file() else "BENCH_LISTMONK names no checkout with a built listmonk"


def apply_schema() -> None:
    """Its tables, by its own installation; its settings; a template that adds nothing."""
    _configure()
    subprocess.run([CHECKOUT / "listmonk", "--install", "--yes"], cwd=CHECKOUT, check=True, capture_output=True)
    address = urlsplit(mailer.SMTP)
    smtp: dict[str, object] = {
        "enabled": True,
        "host": address.hostname,
        "port": address.port,
        "auth_protocol": "none",
        "username": "",
        "password": "",
        "hello_hostname": "",
        "max_conns": _CONNECTIONS,
        "idle_timeout": "15s",
        "wait_timeout": "5s",
        "max_msg_retries": 2,
        "tls_enabled": False,
        "tls_skip_verify": False,
        "email_headers": [],
    }
    settings = {"smtp": [smtp], "app.concurrency": _CONNECTIONS, "app.message_rate": 1_000_000, "app.batch_size": 1000}
    with psycopg.connect(mailer.DATABASE) as conn:
        for key, value in settings.items():
            conn.execute("UPDATE settings SET value = %s WHERE key = %s", (Jsonb(value), key))
        conn.execute("UPDATE templates SET body = '{{ template \"content\" . }}'")
        conn.execute("DELETE FROM subscriber_lists")
        conn.execute("DELETE FROM subscribers")


def _configure() -> None:
    address = urlsplit(mailer.DATABASE)
    (CHECKOUT / "config.toml").write_text(
        f'[app]\naddress = "127.0.0.1:23901"\nadmin_username = "x"\nadmin_password = "x"\n'
        f'[db]\nhost = "{address.hostname}"\nport = {address.port}\nuser = "{address.username}"\n'
        f'password = "{address.password}"\ndatabase = "{address.path[1:]}"\nssl_mode = "disable"\n'
        f'max_open = 25\nmax_idle = 25\nmax_lifetime = "300s"\n'
    )
    # What its site would show; only the files must be there.
    site = CHECKOUT / "frontend" / "dist" / "frontend"
    site.mkdir(parents=True, exist_ok=True)
    for file in (site / "index.html", site.parent / "favicon.png"):
        file.touch()


def _one(conn: psycopg.Connection[Any], statement: Any, *values: object) -> int:
    row = conn.execute(statement, values).fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    os.chdir(CHECKOUT)
    os.execv(CHECKOUT / "listmonk", ["listmonk"])
