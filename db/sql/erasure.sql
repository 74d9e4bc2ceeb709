-- What names a member who is being deleted, outside of their own row (`import_member_deletions`). `members` is a JSON
-- array of ids with the expressions of `schemas.redaction`; `anywhere` is one for all of them. In the order in which
-- workers lock: batches, deliveries, log entries.

-- fragment: erased_members
jsonb_to_recordset(%(members)s::jsonb) AS r(id bigint, own text)

-- fragment: erased
'(deleted member)', 'gi')

-- name: members_to_erase
-- With an account, their address in the trail and at what they started is that of a user of the site.
SELECT m.id, m.name, m.surname, m.email, EXISTS (SELECT FROM accounts a WHERE a.email = lower(m.email)) AS has_account
FROM {{rows_by_id}} JOIN members m ON m.id = r.id AND m.deleted_at IS NULL ORDER BY m.id

-- name: erase_in_replies
-- Texts that servers wrote, and that are about no single member.
WITH b AS (
    UPDATE batches SET first_error = regexp_replace(first_error, %(anywhere)s, {{erased}}
    WHERE first_error ~* %(anywhere)s
), w AS (
    UPDATE batch_webhooks SET last_error = regexp_replace(last_error, %(anywhere)s, {{erased}}
    WHERE last_error ~* %(anywhere)s
)
UPDATE send_limits SET reply = regexp_replace(reply, %(anywhere)s, {{erased}} WHERE reply ~* %(anywhere)s

-- name: erase_in_first_errors
-- Of the batches that had the member: the first error may be about them.
WITH named AS (
    SELECT b.id, string_agg(r.own, '|') AS own FROM {{erased_members}}
    JOIN batches b ON b.first_error ~* r.own
        AND EXISTS (SELECT FROM log_entries l WHERE l.batch_id = b.id AND l.member_id = r.id)
    GROUP BY b.id
)
UPDATE batches b SET first_error = regexp_replace(b.first_error, n.own, {{erased}} FROM named n WHERE n.id = b.id

-- name: erase_in_deliveries
-- A word of the vocabulary is no text: it has no space in it.
WITH found AS (
    SELECT d.event_id, d.action, d.member_id, d.slot, r.own FROM {{erased_members}}
    JOIN deliveries d ON d.member_id = r.id
    WHERE d.reply ~* r.own OR (d.reason ~ ' ' AND d.reason ~* r.own)
    ORDER BY d.event_id, d.action, d.member_id, d.slot FOR UPDATE OF d
)
UPDATE deliveries d SET reply = regexp_replace(d.reply, f.own, {{erased}},
    reason = CASE WHEN d.reason ~ ' ' THEN regexp_replace(d.reason, f.own, {{erased}} ELSE d.reason END
FROM found f
WHERE d.event_id = f.event_id AND d.action = f.action AND d.member_id = f.member_id AND d.slot = f.slot

-- name: erase_in_log
-- By the keys of the member's deliveries, each of which may be in the logs of its event's batches: never the whole log.
WITH named AS MATERIALIZED (
    SELECT l.batch_id, l.member_id, l.slot, r.own FROM {{erased_members}}
    CROSS JOIN LATERAL (SELECT DISTINCT event_id FROM deliveries WHERE member_id = r.id OFFSET 0) d
    CROSS JOIN LATERAL (SELECT id FROM batches WHERE event_id = d.event_id OFFSET 0) b
    CROSS JOIN LATERAL (
        SELECT batch_id, member_id, slot FROM log_entries
        WHERE batch_id = b.id AND member_id = r.id AND reason ~ ' ' AND reason ~* r.own OFFSET 0
    ) l
), found AS (
    SELECT n.* FROM named n JOIN log_entries l USING (batch_id, member_id, slot)
    ORDER BY n.batch_id, n.member_id, n.slot FOR UPDATE OF l
)
UPDATE log_entries l SET reason = regexp_replace(l.reason, f.own, {{erased}}
FROM found f WHERE l.batch_id = f.batch_id AND l.member_id = f.member_id AND l.slot = f.slot

-- name: erase_in_words_of_people
-- Texts that people typed. A key must stay unique, so it is replaced as a whole; the ledger goes on excluding a second
-- mail, whatever batch the next trigger with the old key starts.
WITH b AS (
    UPDATE batches SET initiator = regexp_replace(initiator, %(anywhere)s, {{erased}},
        trigger_key = CASE WHEN trigger_key ~* %(anywhere)s THEN format('erased-%%s', id) ELSE trigger_key END
    WHERE initiator ~* %(anywhere)s OR trigger_key ~* %(anywhere)s
), t AS (
    UPDATE audit_log SET actor = regexp_replace(actor, %(anywhere)s, {{erased}},
        detail = regexp_replace(detail, %(anywhere)s, {{erased}}
    WHERE actor ~* %(anywhere)s OR detail ~* %(anywhere)s
), c AS (
    UPDATE api_clients SET name = regexp_replace(name, %(anywhere)s, {{erased}} WHERE name ~* %(anywhere)s
), s AS (
    UPDATE sign_in_requests SET next_path = '/' WHERE next_path ~* %(anywhere)s
)
DELETE FROM sign_in_attempts WHERE key ~* %(anywhere)s
