-- The hot path of a worker. One transaction runs, in this order: lock_batches, record for what finished, renew, mark
-- for what is wanted, refuse for what could not be marked, and conclude and correct_logs for what was recorded or not
-- marked. All take their rows as one JSON array. Times are the database's: one clock for all workers.
--
-- Parameters that come back: `owner` names one cycle of one worker; `resend_below` is the number of attempts
-- below which an `unknown` delivery may be marked again (0 under the policy `hold`: never).
--
-- Why LATERAL and OFFSET 0: each row of a take must probe each table by its whole key. Joined plainly, the planner
-- may take one column of a key from one table and the rest from another, and then scans a whole batch for every
-- row; with statistics that are a minute old it does.

-- name: lock_batches
-- Held to the end of the transaction: pause and cancel, which lock the row for update, wait for it, and what is
-- read of a batch's state stays true.
SELECT id FROM batches WHERE id = ANY(%(batches)s) ORDER BY id FOR KEY SHARE

-- name: look_up
-- A take of messages: whom they name, what is still to do, and what a mail needs. No lock, no decision.
SELECT t.n, b.event_id AS batch_event_id, e.id IS NOT NULL AS event_known, m.id IS NOT NULL AS member_known,
    b.state = 'paused' AS paused, i.roles, i.settled_at IS NOT NULL AS settled,
    m.name, m.surname, m.email,
    (SELECT jsonb_object_agg(v.role, v.token) FROM invitations v
     WHERE v.event_id = b.event_id AND v.member_id = t.member_id) AS tokens
FROM jsonb_to_recordset(%(take)s) AS t(n int, batch_id bigint, event_id bigint, member_id bigint)
LEFT JOIN batches b ON b.id = t.batch_id
LEFT JOIN events e ON e.id = t.event_id
LEFT JOIN members m ON m.id = t.member_id
LEFT JOIN LATERAL (
    SELECT roles, settled_at FROM batch_items WHERE batch_id = t.batch_id AND member_id = t.member_id OFFSET 0
) i ON true

-- name: find_settled
-- Which messages of a take have nothing left to do. A replay of a settled topic runs on this alone. A batch whose
-- items were removed had settled them all.
SELECT t.n
FROM jsonb_to_recordset(%(take)s) AS t(n int, batch_id bigint, event_id bigint, member_id bigint)
JOIN batches b ON b.id = t.batch_id AND b.event_id = t.event_id
LEFT JOIN LATERAL (
    SELECT settled_at, excluded FROM batch_items
    WHERE batch_id = t.batch_id AND member_id = t.member_id OFFSET 0
) i ON true
WHERE (i.settled_at IS NOT NULL AND i.excluded IS NULL) OR b.archived IS NOT NULL

-- name: event_details
SELECT e.id AS event_id, e.kind, e.name, e.description, e.starts_at, e.ends_at,
    coalesce(e.time_zone, c.zones[1]) AS time_zone, e.host_name, e.host_address, e.role_policy,
    c.names AS chapter_names, c.emails[1] AS chapter_email
FROM events e
CROSS JOIN LATERAL (
    SELECT array_agg(chapters.name ORDER BY position) AS names,
        array_agg(chapters.email ORDER BY position) AS emails,
        array_agg(chapters.time_zone ORDER BY position) AS zones
    FROM event_chapters JOIN chapters ON chapters.id = chapter_id WHERE event_id = e.id
) c
WHERE e.id = ANY(%(events)s)

-- name: record
-- What became of marked mails. The fence is that of the mark: an older hand-over changes nothing. A truth that
-- arrives late still replaces `unknown`, and the attempt that this had used up. A retry in a batch cancelled
-- meanwhile ends there.
UPDATE deliveries d SET
    state = CASE WHEN r.state = 'retry' AND b.state = 'cancelled' THEN 'skipped' ELSE r.state END,
    reason = CASE WHEN r.state = 'retry' AND b.state = 'cancelled' THEN 'batch_cancelled' ELSE r.reason END,
    reply = coalesce(r.reply, d.reply),
    attempts = CASE d.state WHEN 'unknown' THEN greatest(d.attempts - 1, 0) ELSE d.attempts END + r.uses,
    not_before = CASE WHEN r.state = 'retry' THEN now() + r.delay * interval '1 second' END,
    lease_until = NULL, owner = NULL, updated_at = now()
FROM jsonb_to_recordset(%(finished)s) AS r(batch_id bigint, event_id bigint, action text, member_id bigint,
    slot text, fence bigint, state text, reason text, reply text, uses int, delay float8)
JOIN batches b ON b.id = r.batch_id
WHERE d.event_id = r.event_id AND d.action = r.action AND d.member_id = r.member_id AND d.slot = r.slot
    AND d.fence = r.fence AND d.state IN ('handing_off', 'unknown')

-- name: keep_first_error
-- The first failure of each batch that `record` has just written; an old hand-over's is none. n: their order.
UPDATE batches b SET first_error = f.reason
FROM (
    SELECT DISTINCT ON (r.batch_id) r.batch_id, r.reason
    FROM jsonb_to_recordset(%(errors)s) AS r(n int, batch_id bigint, event_id bigint, action text,
        member_id bigint, slot text, fence bigint, reason text)
    JOIN deliveries d ON d.event_id = r.event_id AND d.action = r.action AND d.member_id = r.member_id
        AND d.slot = r.slot AND d.fence = r.fence AND d.state = 'failed'
    ORDER BY r.batch_id, r.n
) f
WHERE b.id = f.batch_id AND b.first_error IS NULL

-- name: mark
-- The claim: committed before the mail's data goes out. Takes a key only if nobody else hands it over or has
-- sent it and its member is still eligible. SKIP LOCKED: never waits, so two workers cannot deadlock; a key
-- locked by another is not taken, and `conclude` makes its item due again. A mark whose commit was not heard of
-- is taken again by its own owner: nothing was sent under it.
WITH eligible AS MATERIALIZED (
    SELECT w.*
    FROM jsonb_to_recordset(%(wanted)s) AS w(batch_id bigint, event_id bigint, action text, member_id bigint,
        slot text, role text)
    JOIN batches b ON b.id = w.batch_id
    JOIN events e ON e.id = w.event_id
    JOIN members m ON m.id = w.member_id
    CROSS JOIN LATERAL (
        SELECT settled_at FROM batch_items WHERE batch_id = w.batch_id AND member_id = w.member_id OFFSET 0
    ) i
    WHERE b.state = 'running' AND i.settled_at IS NULL AND {{ineligibility_reason}} IS NULL
), takeable AS MATERIALIZED (
    SELECT w.*
    FROM eligible w
    CROSS JOIN LATERAL (
        SELECT FROM deliveries d
        WHERE d.event_id = w.event_id AND d.action = w.action AND d.member_id = w.member_id AND d.slot = w.slot
            AND (
                d.state = 'planned'
                OR (d.state = 'retry' AND d.not_before <= now())
                OR (d.state = 'skipped' AND d.batch_id IS DISTINCT FROM w.batch_id)
                OR (d.state = 'handing_off' AND d.owner = %(owner)s)
                OR (d.state = 'unknown' AND d.attempts < %(resend_below)s)
                OR (d.state = 'handing_off' AND d.lease_until < now() AND d.attempts + 1 < %(resend_below)s)
            )
        FOR UPDATE SKIP LOCKED
    ) d
)
UPDATE deliveries d SET state = 'handing_off', fence = d.fence + 1, owner = %(owner)s,
    lease_until = now() + %(lease)s * interval '1 second', role = t.role, batch_id = t.batch_id,
    attempts = d.attempts + CASE WHEN d.state = 'handing_off' AND d.owner <> %(owner)s THEN 1 ELSE 0 END,
    reason = NULL, reply = NULL, not_before = NULL, updated_at = now()
FROM takeable t
WHERE d.event_id = t.event_id AND d.action = t.action AND d.member_id = t.member_id AND d.slot = t.slot
RETURNING d.event_id, d.action, d.member_id, d.slot, d.batch_id, d.fence, d.attempts

-- name: refuse
-- Of what was wanted and not marked: whoever is no longer eligible is skipped with the reason, and a hand-over
-- whose lease ended without an outcome is `unknown`. A mark of this very cycle can only be one whose commit was not
-- heard of, and that may not be taken again: nothing was sent under it, so it is given back.
WITH open AS MATERIALIZED (
    SELECT w.*, b.state = 'running' AS running
    FROM jsonb_to_recordset(%(wanted)s) AS w(batch_id bigint, event_id bigint, action text, member_id bigint,
        slot text, role text)
    JOIN batches b ON b.id = w.batch_id
    CROSS JOIN LATERAL (
        SELECT state, lease_until, owner FROM deliveries
        WHERE event_id = w.event_id AND action = w.action AND member_id = w.member_id AND slot = w.slot OFFSET 0
    ) d
    WHERE d.state IN ('planned', 'retry', 'skipped')
        OR (d.state = 'handing_off' AND (d.lease_until < now() OR d.owner = %(owner)s))
), barred AS MATERIALIZED (
    SELECT w.*, {{ineligibility_reason}} AS bar
    FROM open w
    JOIN events e ON e.id = w.event_id
    JOIN members m ON m.id = w.member_id
), refused AS MATERIALIZED (
    SELECT w.*, CASE
        WHEN d.state = 'handing_off' AND d.owner <> %(owner)s THEN 'unknown'
        -- Under `resend` it may have been in doubt when it was marked: then it still is.
        WHEN d.state = 'handing_off' AND d.attempts > 0 AND %(resend_below)s > 0 THEN 'unknown'
        WHEN w.running AND w.bar IS NOT NULL THEN 'skipped'
        ELSE 'planned'
    END AS state, d.state = 'handing_off' AND d.owner <> %(owner)s AS stopped
    FROM barred w
    CROSS JOIN LATERAL (
        SELECT d.state, d.owner, d.attempts FROM deliveries d
        WHERE d.event_id = w.event_id AND d.action = w.action AND d.member_id = w.member_id AND d.slot = w.slot
            AND ((d.state = 'handing_off' AND (d.lease_until < now() OR d.owner = %(owner)s))
                OR (d.state IN ('planned', 'retry', 'skipped') AND w.running AND w.bar IS NOT NULL))
        FOR UPDATE SKIP LOCKED
    ) d
)
UPDATE deliveries d SET
    state = f.state,
    reason = CASE f.state WHEN 'unknown' THEN 'its worker stopped during the hand-over' WHEN 'skipped' THEN f.bar END,
    attempts = d.attempts + CASE WHEN f.stopped THEN 1 ELSE 0 END,
    batch_id = CASE WHEN f.stopped THEN d.batch_id ELSE f.batch_id END,
    owner = NULL, lease_until = NULL, not_before = NULL, updated_at = now()
FROM refused f
WHERE d.event_id = f.event_id AND d.action = f.action AND d.member_id = f.member_id AND d.slot = f.slot

-- name: hold_unknown
-- What is about to be logged as unknown stays so until the commit: a late truth waits, and then finds this log to
-- correct. Few rows, so that waiting costs nobody much.
SELECT FROM jsonb_to_recordset(%(touched)s) AS w(event_id bigint, action text, member_id bigint, slot text)
CROSS JOIN LATERAL (
    SELECT FROM deliveries
    WHERE event_id = w.event_id AND action = w.action AND member_id = w.member_id AND slot = w.slot
        AND state = 'unknown'
    FOR SHARE
) d

-- fragment: may_be_resent
-- Whether the unknown delivery d will be marked again: the policy, the attempts and her eligibility allow it.
(d.attempts < %(resend_below)s AND (
    SELECT {{ineligibility_reason}} FROM events e, members m, (SELECT d.role) w
    WHERE e.id = d.event_id AND m.id = d.member_id
) IS NULL)

-- fragment: judgement
-- What the ledger's row d, met by batch b, means for that batch: null while it is pending.
CASE
    WHEN d.state = 'sent' AND d.batch_id = b.id THEN 'sent'
    WHEN d.state = 'sent' THEN 'skipped'
    WHEN d.state = 'failed' THEN 'failed'
    -- Skipped by another batch: this one has yet to ask whether she is eligible, when the row is free again.
    WHEN d.state = 'skipped' AND d.batch_id = b.id THEN 'skipped'
    WHEN d.state = 'unknown' AND NOT {{may_be_resent}} THEN 'unknown'
    WHEN b.state = 'cancelled' AND NOT (d.state = 'handing_off' AND d.batch_id = b.id) THEN
        CASE d.state WHEN 'unknown' THEN 'unknown' ELSE 'skipped' END
END

-- fragment: reason_of_judgement
CASE
    WHEN d.state = 'sent' AND d.batch_id IS DISTINCT FROM b.id THEN 'already_sent'
    WHEN d.state IN ('sent', 'failed', 'skipped', 'unknown') THEN d.reason
    WHEN b.state = 'cancelled' THEN 'batch_cancelled'
    ELSE d.reason
END

-- name: conclude
-- What the ledger now says of keys that were recorded or not marked, written to the batch's log, and the item
-- settled or due again: one statement (FM-17), so log and ledger cannot part. A log entry exists for what is
-- settled and for what waits for a retry.
WITH judged AS MATERIALIZED (
    SELECT t.batch_id, t.member_id, t.slot, t.partition, t.kafka_offset, d.role, d.state,
        CASE WHEN d.state = 'sent' AND d.batch_id IS DISTINCT FROM b.id THEN 0 ELSE d.attempts END AS attempts,
        {{judgement}} AS final, {{reason_of_judgement}} AS reason,
        CASE WHEN d.state = 'sent' AND d.batch_id = b.id THEN d.updated_at ELSE now() END AS at,
        CASE d.state
            -- An ended lease whose row is locked: its worker stopped in mid-transaction, and the lock ends, too.
            WHEN 'handing_off' THEN greatest(d.lease_until, now() + interval '1 second')
            WHEN 'retry' THEN d.not_before
            WHEN 'unknown' THEN now() + %(retry_base)s * interval '1 second'
            ELSE now() + interval '1 second'
        END AS due
    FROM jsonb_to_recordset(%(touched)s) AS t(batch_id bigint, event_id bigint, action text, member_id bigint,
        slot text, partition int, kafka_offset bigint)
    JOIN batches b ON b.id = t.batch_id
    JOIN deliveries d ON d.event_id = t.event_id AND d.action = t.action AND d.member_id = t.member_id
        AND d.slot = t.slot
), logged AS (
    INSERT INTO log_entries
        (batch_id, member_id, slot, role, status, reason, attempts, at, partition, kafka_offset)
    SELECT batch_id, member_id, slot, role, coalesce(final, state), reason, attempts, at, partition, kafka_offset
    FROM judged WHERE final IS NOT NULL OR state IN ('retry', 'unknown')
    ORDER BY batch_id, member_id, slot
    ON CONFLICT (batch_id, member_id, slot) DO UPDATE SET role = excluded.role, status = excluded.status,
        reason = excluded.reason, attempts = excluded.attempts, at = excluded.at,
        partition = excluded.partition, kafka_offset = excluded.kafka_offset
), touched AS MATERIALIZED (
    SELECT batch_id, member_id, array_agg(slot) AS slots, count(final) AS finals,
        min(due) FILTER (WHERE final IS NULL) AS due
    FROM judged GROUP BY batch_id, member_id
    -- Items are locked in this order: two workers that conclude the same ones wait for each other, not in a circle.
    ORDER BY batch_id, member_id
)
UPDATE batch_items i SET
    settled_at = CASE WHEN t.finals + o.finals >= cardinality(i.roles) THEN coalesce(i.settled_at, now()) END,
    publish_at = CASE WHEN t.finals + o.finals < cardinality(i.roles) THEN coalesce(least(t.due, o.due), i.publish_at) END
FROM touched t
CROSS JOIN LATERAL (
    -- What the ledger says of the member's other slot, if this batch has met it.
    SELECT count(*) FILTER (WHERE l.status <> 'retry' AND {{judgement}} IS NOT NULL) AS finals,
        min(d.not_before) FILTER (WHERE d.state = 'retry') AS due
    FROM log_entries l
    JOIN batches b ON b.id = l.batch_id
    JOIN deliveries d ON d.event_id = b.event_id AND d.action = b.action AND d.member_id = l.member_id
        AND d.slot = l.slot
    WHERE l.batch_id = t.batch_id AND l.member_id = t.member_id AND l.slot <> ALL (t.slots)
) o
WHERE i.batch_id = t.batch_id AND i.member_id = t.member_id AND i.excluded IS NULL

-- name: correct_logs
-- A truth that arrived late also corrects every other log that calls the delivery unknown; so does what became of a
-- delivery that a late truth had opened again.
WITH told AS MATERIALIZED (
    SELECT t.*, u.batch_id
    FROM jsonb_to_recordset(%(touched)s) AS t(event_id bigint, action text, member_id bigint, slot text)
    CROSS JOIN LATERAL (
        SELECT l.batch_id FROM log_entries l
        WHERE l.member_id = t.member_id AND l.status = 'unknown' AND l.slot = t.slot OFFSET 0
    ) u
    -- Asked once and first: where nothing is unknown, which is nearly always, nothing else is done.
    WHERE EXISTS (SELECT FROM log_entries WHERE status = 'unknown')
)
UPDATE log_entries l SET status = coalesce({{judgement}}, d.state), reason = {{reason_of_judgement}}, attempts = d.attempts, at = now()
FROM told t, batches b, deliveries d
WHERE b.id = t.batch_id AND b.event_id = t.event_id AND b.action = t.action
    AND l.batch_id = t.batch_id AND l.member_id = t.member_id AND l.slot = t.slot
    AND d.event_id = t.event_id AND d.action = t.action AND d.member_id = t.member_id AND d.slot = t.slot
    AND d.state IN ('sent', 'failed', 'skipped')

-- name: renew
-- Only a dead or stopped worker's lease ends.
UPDATE deliveries d SET lease_until = now() + %(lease)s * interval '1 second'
FROM jsonb_to_recordset(%(held)s) AS h(event_id bigint, action text, member_id bigint, slot text, fence bigint)
WHERE d.event_id = h.event_id AND d.action = h.action AND d.member_id = h.member_id AND d.slot = h.slot
    AND d.fence = h.fence AND d.state = 'handing_off'
