"""The databases of `python -m bench scale`: a community that has invited for ten years, in two sizes.

For `members` of 200,000: 333 chapters, 36,500 events, a batch for nearly each of them, 2 million rows of ledger, log,
items and invitations. Chapter 1 has every member: its five campaigns are half of the ledger. `plan_all` adds five more
that are planned and not sent: 1 million items.

Written by set-based SQL, as planning and workers would have. Foreign keys are not checked while it is written. Nothing
was removed from it, unless `fill` is asked for what the rules of retention leave.
"""

from __future__ import annotations

from typing import Final, LiteralString
from uuid import UUID

import psycopg

from db.connect import connect
from db.migrate import upgrade
from db.retention import OF_BATCHES, rules

#: Ids of events, and of the batches of those that have one. `OVER` lies in the future, so that actions are open.
OVER: Final = 1
UNTOUCHED: Final = 6
PLANNED: Final = (7, 8, 9, 10, 11)
TOPIC: Final = UUID(int=1)
PARTITIONS: Final = 6
_EVENTS_PER_MEMBER: Final = 36_500 / 200_000
_MEMBERS_PER_CHAPTER: Final = 600
#: Every so many members of its chapter are invited to a small event.
_STRIDE: Final = 22
#: Days before anything happened.
_ALWAYS: Final = 36_500


def values_for(members: int, *, retained: bool = False) -> dict[str, int]:
    """The parameters of the statements: how many there are of everything, and for how many days rows are kept."""
    days = {rule.table: int(rule.seconds / 86_400) for rule in rules(180 * 86_400.0)} if retained else {}
    return {
        "log_days": days.get(OF_BATCHES, _ALWAYS),
        "link_days": days.get("invitations", _ALWAYS),
        "audit_days": days.get("audit_log", _ALWAYS),
        "members": members,
        "chapters": max(20, members // _MEMBERS_PER_CHAPTER),
        "events": int(members * _EVENTS_PER_MEMBER),
        "stride": _STRIDE,
    }


_DIRECTORY: Final[LiteralString] = """
INSERT INTO chapters SELECT n, 'Chapter ' || n, 'chapter' || n || '@bidden.example', 'Europe/London'
FROM generate_series(1, %(chapters)s) n;
INSERT INTO groups SELECT 2 * n - 1, n, 'Students' FROM generate_series(1, %(chapters)s) n;
INSERT INTO groups SELECT 2 * n, n, 'Coaches' FROM generate_series(1, %(chapters)s) n;
INSERT INTO members (id, name, surname, email, accepted_toc_at)
SELECT n, (string_to_array('Ada Alan Amara Björn Chidi Fatima Grace Ken Noor Olu Wei', ' '))[1 + n %% 11],
    'Surname' || n %% 997, 'person' || n || '@mail' || n %% 9 || '.example',
    CASE WHEN n %% 50 <> 3 THEN now() - interval '1 year' END
FROM generate_series(1, %(members)s) n;
INSERT INTO subscriptions SELECT n, CASE WHEN n %% 5 = 0 THEN 2 ELSE 1 END FROM generate_series(1, %(members)s) n;
INSERT INTO subscriptions
SELECT n, 2 * (2 + n %% (%(chapters)s - 1)) - CASE WHEN n %% 5 = 0 THEN 0 ELSE 1 END
FROM generate_series(1, %(members)s) n;
INSERT INTO bans (id, member_id, permanent) SELECT n, n, true FROM generate_series(7, %(members)s, 100) n;
INSERT INTO events (id, kind, name, starts_at, ends_at, invitable, host_name, host_address)
SELECT n, CASE WHEN n %% 3 = 0 THEN 'event' ELSE 'workshop' END, 'Evening ' || n, t, t + interval '3 hours', true,
    'Host', 'Street'
FROM generate_series(1, %(events)s) n, LATERAL (SELECT now() + CASE WHEN n = 1 OR n BETWEEN 6 AND 11
    THEN n * interval '1 day' ELSE (n - %(events)s) * interval '3650 days' / %(events)s + interval '30 days' END) s(t);
INSERT INTO event_chapters
SELECT n, CASE WHEN n <= 11 THEN 1 ELSE 2 + n %% (%(chapters)s - 1) END, 0 FROM generate_series(1, %(events)s) n;
"""

# Whom each batch had: of the large ones every member, of the others every 22nd of the chapter's.
_CAMPAIGNS: Final[LiteralString] = """
INSERT INTO batches (id, event_id, audience, action, initiator, shuffle_seed, started_at)
OVERRIDING SYSTEM VALUE
SELECT e.id, e.id, 'everyone', 'invite', 'Ada <ada@bidden.example>', e.id,
    least(e.starts_at - interval '20 days', now() - interval '1 hour')
FROM events e WHERE e.id NOT BETWEEN 6 AND 11 ORDER BY e.id;
SELECT setval(pg_get_serial_sequence('batches', 'id'), %(events)s);
CREATE TEMP TABLE candidate ON COMMIT DROP AS
SELECT b.id AS batch_id, b.started_at, m AS member_id, row_number() OVER (PARTITION BY b.id) AS n,
    CASE WHEN m %% 5 = 0 THEN 'Coach' ELSE 'Student' END AS role,
    CASE WHEN m %% 50 = 3 THEN 'terms_not_accepted' WHEN m %% 100 = 7 THEN 'banned' END AS excluded,
    CASE WHEN (m * 31 + b.id) %% 1000 = 0 THEN 'failed' WHEN (m * 31 + b.id) %% 20000 = 5 THEN 'unknown'
        WHEN (m * 31 + b.id) %% 500 = 3 THEN 'skipped' ELSE 'sent' END AS state
FROM batches b CROSS JOIN LATERAL (
    SELECT generate_series(1, %(members)s) WHERE b.id <= 5
    UNION ALL
    SELECT b.id %% (%(chapters)s - 1) + (%(chapters)s - 1)
        * generate_series(1 + b.id %% %(stride)s, %(members)s / (%(chapters)s - 1) - 1, %(stride)s)
    WHERE b.id > 5
) c(m);
INSERT INTO batch_items (batch_id, member_id, roles, excluded, position, topic_id, partition, kafka_offset, settled_at)
SELECT batch_id, member_id, CASE WHEN excluded IS NULL THEN ARRAY[role] ELSE '{}' END, excluded,
    CASE WHEN excluded IS NULL THEN n END,
    CASE WHEN excluded IS NULL THEN '00000000-0000-0000-0000-000000000001'::uuid END,
    CASE WHEN excluded IS NULL THEN n %% 6 END, CASE WHEN excluded IS NULL THEN n END,
    started_at + interval '10 minutes'
FROM candidate WHERE started_at > now() - %(log_days)s * interval '1 day' ORDER BY batch_id, member_id;
INSERT INTO deliveries (event_id, action, member_id, slot, role, state, attempts, fence, reason, reply, batch_id,
    updated_at)
SELECT batch_id, 'invite', member_id, role, role, state, 1, n,
    CASE state WHEN 'failed' THEN '550 5.1.1 no such user'
        WHEN 'unknown' THEN 'the worker ended before it had an answer' WHEN 'skipped' THEN 'left_list' END,
    CASE WHEN state = 'sent' THEN '250 2.0.0 Ok: queued as ' || md5(n::text) END, batch_id,
    started_at + interval '10 minutes'
FROM candidate WHERE excluded IS NULL ORDER BY batch_id, member_id;
INSERT INTO log_entries (batch_id, member_id, slot, role, status, reason, attempts, at, partition, kafka_offset)
SELECT batch_id, member_id, role, role, state,
    CASE state WHEN 'failed' THEN '550 5.1.1 no such user'
        WHEN 'unknown' THEN 'the worker ended before it had an answer' WHEN 'skipped' THEN 'left_list' END,
    1, started_at + interval '10 minutes', n %% 6, n
FROM candidate WHERE excluded IS NULL AND started_at > now() - %(log_days)s * interval '1 day' ORDER BY batch_id, n;
INSERT INTO invitations (event_id, member_id, role, token, attending)
SELECT batch_id, member_id, role, replace(gen_random_uuid()::text, '-', ''),
    CASE WHEN member_id %% 12 = 4 THEN member_id %% 3 > 0 END
FROM candidate
WHERE excluded IS NULL AND (member_id %% 12 = 4 OR started_at > now() - %(link_days)s * interval '1 day')
ORDER BY batch_id, member_id;
UPDATE batches b SET archived = jsonb_build_object('planned', c.planned, 'deliveries', c.planned, 'sent', c.planned,
    'failed', 0, 'unknown', 0, 'skipped', 0, 'wrong', 0, 'excluded', '{}'::jsonb, 'removed_at', now(),
    'last_settled_at', started_at + interval '10 minutes')
FROM (SELECT batch_id, count(*) FILTER (WHERE excluded IS NULL) AS planned FROM candidate GROUP BY batch_id) c
WHERE b.id = c.batch_id AND b.started_at < now() - %(log_days)s * interval '1 day';
UPDATE batches SET first_error = '550 5.1.1 no such user' WHERE id <= 5;
INSERT INTO audit_log (at, actor, action, event_id, batch_id, outcome)
SELECT started_at, initiator, 'invite', event_id, id, 'done' FROM batches
WHERE started_at > now() - %(audit_days)s * interval '1 day';
"""

# As the trigger of each campaign leaves it, with the publish claim over: all due at one time, in the batch's order.
_PLANNED: Final[LiteralString] = """
INSERT INTO batches (event_id, audience, action, initiator, shuffle_seed, started_at)
SELECT n, 'everyone', 'invite', 'Ada <ada@bidden.example>', n, now() - interval '1 minute'
FROM generate_series(7, 11) n;
CREATE TEMP TABLE candidate ON COMMIT DROP AS
SELECT b.id AS batch_id, b.event_id, m AS member_id,
    row_number() OVER (PARTITION BY b.id ORDER BY md5(b.id || ':' || m)) AS n,
    CASE WHEN m %% 5 = 0 THEN 'Coach' ELSE 'Student' END AS role
FROM batches b, generate_series(1, %(members)s) m WHERE b.event_id BETWEEN 7 AND 11;
INSERT INTO batch_items (batch_id, member_id, roles, position, publish_at)
SELECT batch_id, member_id, ARRAY[role], n, now() - interval '30 seconds' + batch_id * interval '1 ms'
FROM candidate ORDER BY batch_id, n;
INSERT INTO deliveries (event_id, action, member_id, slot, role, updated_at)
SELECT event_id, 'invite', member_id, role, role, now() FROM candidate ORDER BY event_id, member_id;
INSERT INTO invitations (event_id, member_id, role, token)
SELECT event_id, member_id, role, replace(gen_random_uuid()::text, '-', '') FROM candidate ORDER BY event_id, member_id;
"""

# All of it on the topic, and nobody has read it.
_PUBLISHED: Final[LiteralString] = """
UPDATE batch_items SET publish_at = NULL, topic_id = '00000000-0000-0000-0000-000000000001', partition = position %% 6,
    kafka_offset = 1000000 + batch_id * 1000000 + position
WHERE settled_at IS NULL;
"""


def fill(url: str, members: int, *, retained: bool = False) -> None:
    """Migrate the empty database and fill it. `retained`: besides the ledger, only what retention leaves."""
    upgrade(url)
    _run(url, _DIRECTORY + _CAMPAIGNS, members, retained=retained)
    _vacuum(url)


def plan_all(url: str, members: int) -> None:
    """Add the campaigns that are planned and due."""
    _run(url, _PLANNED, members)
    _vacuum(url)


def publish_all(url: str, members: int) -> None:
    """Everything that is due has been published."""
    _run(url, _PUBLISHED, members)
    _vacuum(url)


def _vacuum(url: str) -> None:
    """As in production, tables have statistics and a visibility map."""
    with connect(url, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")


def _run(url: str, statements: LiteralString, members: int, *, retained: bool = False) -> None:
    with connect(url) as conn:
        # Half of the time would be the check of foreign keys, row by row.
        conn.execute("SET LOCAL session_replication_role = replica")
        conn.execute("SET LOCAL work_mem = '256MB'")
        for statement in statements.split(";\n"):
            if statement.strip():
                conn.execute(statement, values_for(members, retained=retained))


def copy(server: str, source: str, target: str) -> str:
    """Copy a database of the server whose address is given, replacing `target`; the copy's address."""
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {target} WITH (FORCE)".encode())
        conn.execute(f"CREATE DATABASE {target} TEMPLATE {source} STRATEGY FILE_COPY".encode())
    return address(server, target)


def address(server: str, name: str) -> str:
    """The address of another database of the server."""
    return f"{server.rpartition('/')[0]}/{name}"


def built(server: str, name: str) -> bool:
    """Whether the server has a database of that name that was built to its end."""
    with psycopg.connect(server, autocommit=True) as conn:
        row = conn.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (name,)
        ).fetchone()
    return row is not None and row[0] == "built"


def build(server: str, members: int) -> None:
    """The databases of one size, unless the server has them already: `scale_N`, and `scale_N_planned`."""
    name = f"scale_{members}"
    if not built(server, name):
        _create(server, name)
        fill(address(server, name), members)
        _mark(server, name)
    if not built(server, f"{name}_planned"):
        plan_all(copy(server, name, f"{name}_planned"), members)
        _mark(server, f"{name}_planned")


def _create(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        conn.execute(f"CREATE DATABASE {name}".encode())


def _mark(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"COMMENT ON DATABASE {name} IS 'built'".encode())
