-- The import of a directory file. `rows` is a JSON array of the lines of one type, each with the number of its line.
-- A check returns the wrong lines (line, field, problem), with the id of another record that the field names where that
-- may be wrong itself (`names`). Checks see what the same transaction has written before them. Imports take turns (lock_imports), so no two deadlock; rows are written in the order of ids for
-- other transactions that write many rows.

-- fragment: chapter_rows
jsonb_to_recordset(%(rows)s::jsonb) AS r(line integer, id bigint, name text, email text, time_zone text)

-- fragment: group_rows
jsonb_to_recordset(%(rows)s::jsonb) AS r(line integer, id bigint, chapter_id bigint, name text)

-- fragment: member_rows
jsonb_to_recordset(%(rows)s::jsonb)
    AS r(line integer, id bigint, name text, surname text, email text, mailbox bytea, accepted_toc_at timestamptz)

-- fragment: subscription_rows
jsonb_to_recordset(%(rows)s::jsonb) AS r(line integer, member_id bigint, group_id bigint)

-- fragment: ban_rows
jsonb_to_recordset(%(rows)s::jsonb)
    AS r(line integer, id bigint, member_id bigint, expires_at timestamptz, permanent boolean)

-- fragment: event_rows
jsonb_to_recordset(%(rows)s::jsonb)
    AS r(line integer, id bigint, kind text, name text, description text, chapter_ids bigint[], starts_at timestamptz,
         ends_at timestamptz, time_zone text, invitable boolean, host jsonb, role_policy text,
         cancelled_at timestamptz, ref text, audience text, rsvp_url text)

-- fragment: invitation_rows
jsonb_to_recordset(%(rows)s::jsonb)
    AS r(line integer, event_id bigint, member_id bigint, role text, attending boolean, token text,
         sent_at timestamptz)

-- fragment: rows_by_id
jsonb_to_recordset(%(rows)s::jsonb) AS r(line integer, id bigint)

-- fragment: member_is_absent
NOT EXISTS (SELECT FROM members m WHERE m.id = r.member_id AND m.deleted_at IS NULL)

-- fragment: member_problem
format('member %%s is neither in the file nor in the database, or is deleted', r.member_id)

-- name: lock_imports
SELECT pg_advisory_xact_lock(hashtextextended('bidden: import', {{schema_seed}}))

-- name: lock_events
-- Planning locks the event until its deliveries are written: after this, what the checks see stays true.
SELECT id FROM events WHERE id = ANY(%(ids)s::bigint[]) ORDER BY id FOR UPDATE

-- name: import_chapters
INSERT INTO chapters AS c (id, name, email, time_zone)
SELECT r.id, r.name, r.email, r.time_zone FROM {{chapter_rows}} ORDER BY r.id
ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email, time_zone = excluded.time_zone
WHERE (c.name, c.email, c.time_zone) IS DISTINCT FROM (excluded.name, excluded.email, excluded.time_zone)

-- name: import_group_deletions
-- Cascades to its subscriptions.
DELETE FROM groups g USING {{rows_by_id}} WHERE g.id = r.id

-- name: check_groups
SELECT r.line, 'chapter_id' AS field,
       format('chapter %%s is neither in the file nor in the database', r.chapter_id) AS problem,
       NULL::bigint AS names
FROM {{group_rows}}
WHERE NOT EXISTS (SELECT FROM chapters c WHERE c.id = r.chapter_id)
ORDER BY r.line

-- name: import_groups
INSERT INTO groups AS g (id, chapter_id, name)
SELECT r.id, r.chapter_id, r.name FROM {{group_rows}} ORDER BY r.id
ON CONFLICT (id) DO UPDATE SET chapter_id = excluded.chapter_id, name = excluded.name
WHERE (g.chapter_id, g.name) IS DISTINCT FROM (excluded.chapter_id, excluded.name)

-- fragment: keep_former_mailboxes
-- Of members m in the rows r: the mailbox that they are about to lose, if anything was promised to them, or could be by a
-- link that they have (ADR 31).
INSERT INTO former_mailboxes (mailbox, member_id)
SELECT m.mailbox, m.id FROM members m JOIN r ON r.id = m.id
WHERE m.mailbox IS NOT NULL AND m.mailbox IS DISTINCT FROM r.mailbox AND (
    EXISTS (SELECT FROM invitations v WHERE v.member_id = m.id) OR EXISTS (SELECT FROM bans b WHERE b.member_id = m.id)
    OR EXISTS (SELECT FROM opt_outs o WHERE o.member_id = m.id)
)
ORDER BY m.mailbox, m.id
ON CONFLICT (mailbox, member_id) DO NOTHING

-- name: keep_mailboxes_of_deleted
WITH r AS (SELECT r.id, NULL::bytea AS mailbox FROM {{rows_by_id}})
{{keep_former_mailboxes}}

-- name: keep_mailboxes_of_changed
WITH r AS (SELECT r.id, r.mailbox FROM {{member_rows}})
{{keep_former_mailboxes}}

-- name: mark_shared_mailboxes
-- Every member whose mailbox is also that of a member in the rows.
UPDATE members m SET shares_mailbox = true
FROM {{rows_by_id}} JOIN members n ON n.id = r.id
WHERE m.mailbox = n.mailbox AND NOT m.shares_mailbox AND (
    EXISTS (SELECT FROM members o WHERE o.mailbox = m.mailbox AND o.id <> m.id)
    OR EXISTS (SELECT FROM former_mailboxes f WHERE f.mailbox = m.mailbox AND f.member_id <> m.id)
)

-- name: import_member_deletions
-- Anonymised and not removed, so that the ledger's keys keep their meaning; bans stay for the same reason. Mailed links
-- stop working. Unknown members, and those deleted before, are unchanged.
WITH anonymised AS (
    UPDATE members m
    SET name = 'Deleted', surname = NULL, email = format('deleted-%%s@deleted.invalid', m.id),
        mailbox = NULL, shares_mailbox = false, accepted_toc_at = NULL, deleted_at = now()
    FROM {{rows_by_id}} WHERE m.id = r.id AND m.deleted_at IS NULL
    RETURNING m.id
), unsubscribed AS (
    DELETE FROM subscriptions s USING anonymised a WHERE s.member_id = a.id
)
UPDATE invitations i SET token = {{new_token}} FROM anonymised a WHERE i.member_id = a.id

-- name: import_members
INSERT INTO members AS m (id, name, surname, email, mailbox, accepted_toc_at)
SELECT r.id, r.name, r.surname, r.email, r.mailbox, r.accepted_toc_at FROM {{member_rows}} ORDER BY r.id
ON CONFLICT (id) DO UPDATE
SET name = excluded.name, surname = excluded.surname, email = excluded.email, mailbox = excluded.mailbox,
    shares_mailbox = m.shares_mailbox AND m.mailbox = excluded.mailbox,
    accepted_toc_at = excluded.accepted_toc_at, deleted_at = NULL
WHERE (m.name, m.surname, m.email, m.mailbox, m.accepted_toc_at, m.deleted_at)
    IS DISTINCT FROM (excluded.name, excluded.surname, excluded.email, excluded.mailbox, excluded.accepted_toc_at, NULL)

-- name: check_emails
-- Runs after the members are written: the constraint is deferred, so that two may swap their addresses.
SELECT r.line, 'email' AS field, format('email is already the address of member %%s', other.id) AS problem,
       other.id AS names
FROM {{rows_by_id}}
JOIN members m ON m.id = r.id
JOIN members other ON other.email = m.email AND other.id <> m.id
ORDER BY r.line

-- name: import_subscription_deletions
DELETE FROM subscriptions s USING {{subscription_rows}} WHERE s.member_id = r.member_id AND s.group_id = r.group_id

-- name: check_subscriptions
SELECT r.line, 'member_id' AS field, {{member_problem}} AS problem, r.member_id AS names
FROM {{subscription_rows}} WHERE {{member_is_absent}}
UNION ALL
SELECT r.line, 'group_id', format('group %%s is neither in the file nor in the database, or is deleted', r.group_id),
       r.group_id
FROM {{subscription_rows}}
WHERE NOT EXISTS (SELECT FROM groups g WHERE g.id = r.group_id)
ORDER BY line

-- name: import_subscriptions
INSERT INTO subscriptions (member_id, group_id)
SELECT r.member_id, r.group_id FROM {{subscription_rows}} ORDER BY r.member_id, r.group_id
ON CONFLICT (member_id, group_id) DO NOTHING

-- name: import_ban_deletions
DELETE FROM bans b USING {{rows_by_id}} WHERE b.id = r.id

-- name: check_bans
SELECT r.line, 'member_id' AS field, {{member_problem}} AS problem, r.member_id AS names
FROM {{ban_rows}} WHERE {{member_is_absent}}
ORDER BY r.line

-- name: import_bans
INSERT INTO bans AS b (id, member_id, expires_at, permanent)
SELECT r.id, r.member_id, r.expires_at, r.permanent FROM {{ban_rows}} ORDER BY r.id
ON CONFLICT (id) DO UPDATE
SET member_id = excluded.member_id, expires_at = excluded.expires_at, permanent = excluded.permanent
WHERE (b.member_id, b.expires_at, b.permanent)
    IS DISTINCT FROM (excluded.member_id, excluded.expires_at, excluded.permanent)

-- name: check_events
-- The slot of a delivery follows from the role policy: a change after the first could mail a member twice.
SELECT r.line, 'chapter_ids' AS field,
       format('chapter_ids names chapter %%s, which is neither in the file nor in the database', named.id) AS problem,
       NULL::bigint AS names
FROM {{event_rows}}
CROSS JOIN unnest(r.chapter_ids) AS named(id)
WHERE NOT EXISTS (SELECT FROM chapters c WHERE c.id = named.id)
UNION ALL
SELECT r.line, 'role_policy',
       format('role_policy is %%s since the first delivery for event %%s, and can no longer change', e.role_policy, e.id),
       NULL
FROM {{event_rows}}
JOIN events e ON e.id = r.id
WHERE e.role_policy <> r.role_policy AND EXISTS (SELECT FROM deliveries d WHERE d.event_id = r.id)
ORDER BY line

-- name: import_events
INSERT INTO events AS e (id, kind, name, description, starts_at, ends_at, time_zone, invitable, host_name,
                         host_address, role_policy, cancelled_at, ref, audience, rsvp_url)
SELECT r.id, r.kind, r.name, r.description, r.starts_at, r.ends_at, r.time_zone, r.invitable, r.host->>'name',
       r.host->>'address', coalesce(r.role_policy, known.role_policy, %(role_policy)s), r.cancelled_at,
       r.ref, r.audience, r.rsvp_url
FROM {{event_rows}} LEFT JOIN events known ON known.id = r.id ORDER BY r.id
ON CONFLICT (id) DO UPDATE
SET kind = excluded.kind, name = excluded.name, description = excluded.description, starts_at = excluded.starts_at,
    ends_at = excluded.ends_at, time_zone = excluded.time_zone, invitable = excluded.invitable,
    host_name = excluded.host_name, host_address = excluded.host_address, role_policy = excluded.role_policy,
    cancelled_at = excluded.cancelled_at, ref = excluded.ref, audience = excluded.audience,
    rsvp_url = excluded.rsvp_url

-- name: check_event_refs
-- Runs after the events are written: the constraint is deferred, so that two may swap their references.
SELECT r.line, 'ref' AS field, format('ref is already that of event %%s', other.id) AS problem, other.id AS names
FROM {{rows_by_id}}
JOIN events e ON e.id = r.id
JOIN events other ON other.ref = e.ref AND other.id <> e.id
ORDER BY r.line

-- name: import_event_chapters
-- Exactly the chapters of the line, in its order.
WITH no_longer AS (
    DELETE FROM event_chapters ec USING {{event_rows}}
    WHERE ec.event_id = r.id AND ec.chapter_id <> ALL (r.chapter_ids)
)
INSERT INTO event_chapters (event_id, chapter_id, position)
SELECT r.id, named.id, named.position
FROM {{event_rows}}
CROSS JOIN unnest(r.chapter_ids) WITH ORDINALITY AS named(id, position)
ORDER BY r.id, named.id
ON CONFLICT (event_id, chapter_id) DO UPDATE SET position = excluded.position

-- name: check_invitations
-- Mailed links stay valid for ever, so a token never changes and never names two invitations. With the token of the
-- member's invitation in the other role the line moves that one (`move_invitations`), unless this role has one already.
SELECT r.line, 'event_id' AS field,
       format('event %%s is neither in the file nor in the database', r.event_id) AS problem, r.event_id AS names
FROM {{invitation_rows}}
WHERE NOT EXISTS (SELECT FROM events e WHERE e.id = r.event_id)
UNION ALL
SELECT r.line, 'member_id', {{member_problem}}, r.member_id
FROM {{invitation_rows}} WHERE {{member_is_absent}}
UNION ALL
SELECT r.line, 'token', 'token differs from the one that this invitation has; links that were mailed must go on working',
       NULL
FROM {{invitation_rows}}
JOIN invitations i USING (event_id, member_id, role)
WHERE r.token <> i.token
UNION ALL
SELECT r.line, 'token', 'token is that of another invitation', NULL
FROM {{invitation_rows}}
JOIN invitations i ON i.token = r.token
WHERE (i.event_id, i.member_id) <> (r.event_id, r.member_id)
UNION ALL
SELECT r.line, 'sent_at', 'sent_at is in the future', NULL
FROM {{invitation_rows}} WHERE r.sent_at > clock_timestamp()
ORDER BY line

-- name: move_invitations
-- In another role than before, and with the same token: the link that was mailed leads there. For all rows before any
-- other is written: one without a token may be the new invitation in the role that this one leaves.
UPDATE invitations i SET role = r.role
FROM {{invitation_rows}}
WHERE i.token = r.token AND i.event_id = r.event_id AND i.member_id = r.member_id AND i.role <> r.role

-- name: import_invitations
-- What retention has removed, or would, is not written: each import of a whole history would bring it back.
INSERT INTO invitations AS i (event_id, member_id, role, token, attending)
SELECT r.event_id, r.member_id, r.role, coalesce(r.token, {{new_token}}), r.attending
FROM {{invitation_rows}}
JOIN events e ON e.id = r.event_id
CROSS JOIN LATERAL (SELECT r.member_id, r.role) v
WHERE r.attending IS NOT NULL OR NOT (e.ends_at {{is_old}} AND {{has_newer_link}})
ORDER BY r.event_id, r.member_id, r.role
-- A line without an answer removes none: the member may have given it by the link in their mail.
ON CONFLICT (event_id, member_id, role) DO UPDATE SET attending = excluded.attending
WHERE excluded.attending IS NOT NULL AND i.attending IS DISTINCT FROM excluded.attending

-- name: import_sent
-- Mailed by another system, so not the row that we have placed there ourselves: the ledger has it as sent. A delivery that is in flight records its own outcome.
-- Under the role policy `one` two lines may name one slot: the earlier mail counts.
WITH mailed AS (
    SELECT DISTINCT ON (r.event_id, r.member_id, slot) r.event_id, r.member_id,
           {{slot_of_role}} AS slot, r.role, r.sent_at
    FROM {{invitation_rows}}
    JOIN events e ON e.id = r.event_id
    WHERE r.sent_at IS NOT NULL
        AND NOT EXISTS (SELECT FROM invitations i WHERE i.token = r.token AND i.placement IN ('made', 'ours'))
    ORDER BY r.event_id, r.member_id, slot, r.sent_at
), imported AS (
    INSERT INTO deliveries AS d (event_id, action, member_id, slot, role, state, fence, reason, updated_at)
    SELECT event_id, 'invite', member_id, slot, role, 'sent', 1, 'imported', sent_at FROM mailed
    ORDER BY event_id, member_id, slot
    ON CONFLICT (event_id, action, member_id, slot) DO UPDATE
    SET role = excluded.role, state = 'sent', fence = d.fence + 1, owner = NULL, lease_until = NULL,
        not_before = NULL, reason = excluded.reason, reply = NULL, batch_id = NULL, updated_at = excluded.updated_at
    WHERE d.state NOT IN ('sent', 'handing_off')
    RETURNING event_id, action, member_id, slot
)
UPDATE log_entries l
SET status = 'skipped', reason = 'already_sent', at = now()
FROM imported t
JOIN batches b ON b.event_id = t.event_id AND b.action = t.action
WHERE l.batch_id = b.id AND l.member_id = t.member_id AND l.slot = t.slot AND l.status = 'unknown'

-- name: import_tokens_to_mail
-- A delivery that may still be handed over in the role that an invitation has left needs a token of its own, as if it
-- were planned now. Runs after the deliveries of the rows are closed by what another system mailed.
INSERT INTO invitations (event_id, member_id, role, token)
SELECT d.event_id, d.member_id, d.role, {{new_token}}
FROM {{invitation_rows}}
JOIN deliveries d ON d.event_id = r.event_id AND d.action = 'invite' AND d.member_id = r.member_id
WHERE r.token IS NOT NULL AND d.role <> r.role AND d.state NOT IN ('sent', 'skipped')
ORDER BY d.event_id, d.member_id, d.role
ON CONFLICT (event_id, member_id, role) DO NOTHING
