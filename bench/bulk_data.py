"""Bulk data: the database of a large community, written by set-based SQL, in the states that batches end in.

One chapter of 120,000 members. An event whose batch of 111,000 mails is complete, one with a batch as large that is
half done, one without invitations; and two hundred small events of other chapters, so that no table is one batch alone.
"""

from __future__ import annotations

from typing import Final, LiteralString

from db.connect import connect
from db.migrate import upgrade

MEMBERS: Final = 120_000
#: Ids of events and batches.
OVER, UNDER_WAY, UNTOUCHED, JOINT = 1, 2, 3, 4
BATCH_OVER, BATCH_UNDER_WAY = 1, 2
#: An ordinary member of the large chapter, and one who is in no batch.
MEMBER: Final = 60_001

_CHAPTERS: Final[LiteralString] = """
INSERT INTO chapters SELECT n, 'Chapter ' || n, 'chapter' || n || '@bidden.example', 'Europe/London'
FROM generate_series(1, 20) n;
INSERT INTO groups SELECT 2 * n - 1, n, 'Students' FROM generate_series(1, 20) n;
INSERT INTO groups SELECT 2 * n, n, 'Coaches' FROM generate_series(1, 20) n;
INSERT INTO events (id, kind, name, starts_at, ends_at, invitable, host_name, host_address)
SELECT n, CASE WHEN n %% 3 = 0 THEN 'event' ELSE 'workshop' END, 'Evening ' || n,
    now() + (n - 150) * interval '-1 day', now() + (n - 150) * interval '-1 day' + interval '3 hours', true, 'Host',
    'Street'
FROM generate_series(1, 200) n;
INSERT INTO event_chapters SELECT n, CASE WHEN n <= 4 THEN 1 ELSE 2 + n %% 19 END, 0 FROM generate_series(1, 200) n;
INSERT INTO event_chapters VALUES (4, 2, 1);
"""

# Of forty names and as many surnames; a handful have unique names.
_MEMBERS: Final[LiteralString] = """
INSERT INTO members (id, name, surname, email, accepted_toc_at)
SELECT n, coalesce(name[1 + n * 7919 %% 40], '?'), surname[1 + (n / 40) %% 40],
    'person' || n || '@mail' || n %% 9 || '.example',
    CASE WHEN n %% 10 <> 3 THEN now() - interval '1 year' END
FROM generate_series(1, %(members)s) n, (SELECT
    string_to_array('Ada Alan Amara Amélie Anita Barbara Björn Chidi Chloé Dana Edsger Fatima Frances Grace Hedy'
        || ' Inés Jean Joan Katherine Ken Lin Margaret Mary Mika Niklaus Noor Olu Priya Radia Raúl Shafi Sophie'
        || ' Tim Tu Vint Wei Yewande Yukihiro Zainab Żeljko', ' ') AS name,
    string_to_array('Adeyemi Allen Bartik Bäckström Clarke Cohen Díaz Easley Fernández García Hamilton Holberton Hopper'
        || ' Ibrahim Johnson Kaur Khan Lamarr Li Liskov Lovelace Müller Nakamura Nguyễn Okafor Perlman Quinn Rossi'
        || ' Sørensen Shaw Singh Spence Tanaka Thompson Turing Vaughan Wing Woźniak Xu Zhang', ' ') AS surname) names;
UPDATE members SET surname = 'Ørsted-' || id WHERE id %% 40000 = 17;
INSERT INTO subscriptions SELECT id, 1 FROM members WHERE id %% 5 <> 0 AND id <= %(members)s - 2000;
INSERT INTO subscriptions SELECT id, 2 FROM members WHERE (id %% 5 = 0 OR id %% 20 = 1) AND id <= %(members)s - 2000;
INSERT INTO subscriptions SELECT id, 3 + id %% 38 FROM members WHERE id > %(members)s - 2000 OR id %% 50 = 0;
INSERT INTO bans (id, member_id, expires_at, permanent)
SELECT id, id, CASE WHEN id %% 400 <> 7 THEN now() + (id %% 400 - 200) * interval '1 day' END, id %% 400 = 7
FROM members WHERE id %% 100 = 7;
"""

# What planning everyone would have written, shuffled into the order of sending.
_BATCH: Final[LiteralString] = """
INSERT INTO batches (event_id, audience, action, initiator, shuffle_seed, started_at)
VALUES (%(event)s, 'everyone', 'invite', 'Ada <ada@bidden.example>', 1, now() - interval '1 hour');
INSERT INTO batch_items (batch_id, member_id, roles, excluded, position, topic_id, partition, kafka_offset, settled_at)
SELECT %(batch)s, x.member_id, CASE WHEN reason IS NULL THEN x.roles ELSE '{}' END, reason,
    CASE WHEN reason IS NULL THEN row_number() OVER (PARTITION BY reason IS NULL ORDER BY md5('1:' || x.member_id)) END,
    CASE WHEN reason IS NULL THEN '00000000-0000-0000-0000-000000000001'::uuid END,
    CASE WHEN reason IS NULL THEN 0 END, CASE WHEN reason IS NULL THEN x.member_id END,
    now() - interval '50 minutes'
FROM (
    SELECT s.member_id, array_agg(s.role ORDER BY s.role DESC) AS roles, CASE
        WHEN min(m.accepted_toc_at) IS NULL THEN 'terms_not_accepted'
        WHEN EXISTS (SELECT FROM bans n WHERE n.member_id = s.member_id AND (n.permanent OR n.expires_at > now()))
            THEN 'banned'
    END AS reason
    FROM event_subscriptions s JOIN members m ON m.id = s.member_id WHERE s.event_id = %(event)s GROUP BY s.member_id
) x ORDER BY md5('1:' || x.member_id);
INSERT INTO invitations (event_id, member_id, role, token)
SELECT %(event)s, member_id, role, replace(gen_random_uuid()::text, '-', '') FROM batch_items, unnest(roles) AS role
WHERE batch_id = %(batch)s ORDER BY member_id;
"""

# `n` is the delivery's place in the order of sending; those after `done` are still planned.
_OUTCOMES: Final[LiteralString] = """
CREATE TEMP TABLE outcome ON COMMIT DROP AS
SELECT i.member_id, r.role, i.position AS n, CASE
    WHEN i.position > %(done)s + 4000 THEN 'planned'
    WHEN i.position > %(done)s THEN CASE WHEN i.position %% 100 = 1 THEN 'retry' ELSE 'planned' END
    WHEN i.position %% 1000 = 1 THEN 'failed' WHEN i.position %% 20000 = 5 THEN 'unknown'
    WHEN i.position %% 500 = 3 THEN 'skipped' ELSE 'sent' END AS state
FROM batch_items i, unnest(i.roles) AS r(role) WHERE i.batch_id = %(batch)s;
ANALYZE outcome;
INSERT INTO deliveries (event_id, action, member_id, slot, role, state, attempts, fence, not_before, reason, reply,
    batch_id, updated_at)
SELECT %(event)s, 'invite', member_id, role, role, state, CASE WHEN state <> 'planned' THEN 1 ELSE 0 END, n,
    CASE WHEN state = 'retry' THEN now() + interval '1 minute' END,
    CASE state WHEN 'failed' THEN '550 5.1.1 no such user'
        WHEN 'unknown' THEN 'the worker ended before it had an answer'
        WHEN 'skipped' THEN 'left_list' WHEN 'retry' THEN '451 4.7.1 try again later' END,
    CASE WHEN state = 'sent' THEN '250 2.0.0 Ok: queued as ' || md5(n::text) END,
    CASE WHEN state <> 'planned' THEN %(batch)s END, now()
FROM outcome ORDER BY member_id;
INSERT INTO log_entries (batch_id, member_id, slot, role, status, reason, attempts, at, partition, kafka_offset)
SELECT %(batch)s, member_id, role, role, state, CASE state WHEN 'failed' THEN '550 5.1.1 no such user'
        WHEN 'unknown' THEN 'the worker ended before it had an answer' WHEN 'skipped' THEN 'left_list'
        WHEN 'retry' THEN '451 4.7.1 try again later' END,
    1, now() - greatest(%(done)s - n, 0) * interval '1 millisecond', 0, n
FROM outcome WHERE state <> 'planned' ORDER BY n;
UPDATE batch_items i SET settled_at = NULL, publish_at = CASE WHEN n %% 100 = 1 THEN now() + interval '1 minute' END
FROM outcome o WHERE i.batch_id = %(batch)s AND i.member_id = o.member_id AND o.state IN ('retry', 'planned');
UPDATE invitations v SET attending = v.member_id %% 3 > 0
FROM outcome o WHERE v.event_id = %(event)s AND v.member_id = o.member_id AND v.role = o.role AND o.state = 'sent'
    AND v.member_id %% 12 = 4;
"""

# A second batch for the same event: mostly members who were mailed already, which workers found out.
_AGAIN: Final[LiteralString] = """
UPDATE batches SET first_error = '550 5.1.1 no such user' WHERE id = 1;
UPDATE log_entries l SET status = 'skipped', reason = 'already_sent'
FROM deliveries d WHERE l.batch_id = 1 AND d.event_id = 1 AND d.member_id = l.member_id AND d.slot = l.slot
    AND d.state = 'skipped';
INSERT INTO batches (event_id, audience, action, initiator, shuffle_seed, started_at)
VALUES (1, 'students', 'invite', 'System', 1, now() - interval '2 hours');
WITH elsewhere AS (
    DELETE FROM deliveries WHERE event_id = 1 AND state = 'skipped' RETURNING *
), again AS (
    INSERT INTO deliveries
        (event_id, action, member_id, slot, role, state, attempts, fence, reply, batch_id, updated_at)
    SELECT event_id, action, member_id, slot, role, 'sent', 1, fence, '250 ok', 3, updated_at FROM elsewhere RETURNING *
), logged AS (
    INSERT INTO log_entries (batch_id, member_id, slot, role, status, attempts, at)
    SELECT 3, member_id, slot, role, 'sent', 1, now() FROM again
)
INSERT INTO batch_items (batch_id, member_id, roles, position, settled_at)
SELECT 3, member_id, array_agg(role), row_number() OVER (), now() FROM again GROUP BY member_id;
"""

_SMALL: Final[LiteralString] = """
INSERT INTO batches (event_id, audience, action, initiator, shuffle_seed, started_at)
SELECT e, 'everyone', 'invite', 'System', 1, now() - interval '3 hours' FROM generate_series(5, 200) e;
INSERT INTO batch_items (batch_id, member_id, roles, position, settled_at)
SELECT b.id, s.member_id, array_agg(s.role), row_number() OVER (PARTITION BY b.id), now() - interval '2 hours'
FROM batches b JOIN event_subscriptions s ON s.event_id = b.event_id WHERE b.id > 3 GROUP BY b.id, s.member_id;
INSERT INTO deliveries (event_id, action, member_id, slot, role, state, attempts, fence, reply, batch_id, updated_at)
SELECT b.event_id, 'invite', i.member_id, r, r, 'sent', 1, 1, '250 ok', b.id, now()
FROM batches b JOIN batch_items i ON i.batch_id = b.id, unnest(i.roles) AS r WHERE b.id > 3;
INSERT INTO log_entries (batch_id, member_id, slot, role, status, attempts, at)
SELECT i.batch_id, i.member_id, r, r, 'sent', 1, now() - interval '2 hours' FROM batch_items i, unnest(i.roles) AS r
WHERE i.batch_id > 3;
"""


def fill(url: str, members: int) -> None:
    """Migrate the empty database and fill it. As in production, its tables have statistics."""
    upgrade(url)
    _run(url, _CHAPTERS + _MEMBERS, members=members)
    for event, batch, done in ((OVER, BATCH_OVER, members), (UNDER_WAY, BATCH_UNDER_WAY, members * 2 // 5)):
        _run(url, _BATCH + _OUTCOMES, event=event, batch=batch, done=done)
    _run(url, _AGAIN + _SMALL)
    with connect(url, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")


def _run(url: str, statements: LiteralString, **values: int) -> None:
    """Run a script in one transaction, statement by statement: several at once take no parameters."""
    with connect(url) as conn:
        for statement in statements.split(";\n"):
            if statement.strip():
                conn.execute(statement, values)
