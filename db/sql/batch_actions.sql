-- Actions of operators on batches: pause, resume, cancel, retry, resolve. A decision is one short transaction
-- that stores the batch's state and marks it as not applied yet; producers/decisions.py applies it to the items in
-- chunks, each a transaction of its own. Workers hold FOR KEY SHARE on a batch while they commit. A chunk that must not
-- interleave with their commits locks the batch FOR UPDATE, for milliseconds. Locks are taken in the order event,
-- batches by id, deliveries, items, log entries, like those of workers and of planning.

-- name: find_batch
SELECT id AS batch_id, event_id, planning IS NOT NULL AS is_planning FROM batches WHERE id = %(batch_id)s

-- name: lock_batch_against_operators
-- Excludes other operators, not workers, so that an action takes effect however many workers are committing.
SELECT state FROM batches WHERE id = %(batch_id)s FOR NO KEY UPDATE

-- name: lock_batch
-- Waits for each worker that is committing for the batch, and excludes workers until this transaction ends.
SELECT state FROM batches WHERE id = %(batch_id)s FOR UPDATE

-- name: lock_event_against_planning
-- No batch of the event can be planned until the transaction ends; the event itself may be read.
SELECT id FROM events WHERE id = %(event_id)s FOR NO KEY UPDATE

-- name: lock_batches_of_event
SELECT id FROM batches WHERE event_id = %(event_id)s ORDER BY id FOR UPDATE

-- name: decide_batch
-- The whole decision: from its commit on nothing of a batch that does not run is published or claimed. Cancelled is for
-- good, and what is cancelled before it was planned never is. A decision again, or another one, is applied from the
-- first item on.
UPDATE batches SET state = %(state)s, planning = CASE WHEN %(state)s <> 'cancelled' THEN planning END,
    cancelled_at = CASE %(state)s WHEN 'cancelled' THEN coalesce(cancelled_at, now()) END,
    unapplied_since = now(), applied_to = 0
WHERE id = %(batch_id)s AND (state <> 'cancelled' OR %(state)s = 'cancelled')

-- name: unapplied_batches
-- Batches whose last decision is not applied to all their items, the oldest first. What is to be planned has none yet.
SELECT id FROM batches WHERE unapplied_since IS NOT NULL AND planning IS NULL ORDER BY unapplied_since, id

-- name: unapplied_decision
SELECT state, unapplied_since, applied_to FROM batches WHERE id = %(batch_id)s AND unapplied_since IS NOT NULL
    AND planning IS NULL

-- name: next_planned_items
-- Where the next chunk ends. Settled items count, too: see `cancel_deliveries`.
SELECT max(member_id) AS upto, count(*) AS items FROM (
    SELECT member_id FROM batch_items WHERE batch_id = %(batch_id)s AND member_id > %(after)s AND excluded IS NULL
    ORDER BY member_id LIMIT %(limit)s
) chunk

-- name: next_unsettled_items
SELECT max(member_id) AS upto, count(*) AS items FROM (
    SELECT member_id FROM batch_items WHERE batch_id = %(batch_id)s AND member_id > %(after)s AND settled_at IS NULL
    ORDER BY member_id LIMIT %(limit)s
) chunk

-- name: store_applied
-- How far the decision is applied; with null as the end it is applied to all.
UPDATE batches SET applied_to = coalesce(%(upto)s::bigint, applied_to),
    unapplied_since = CASE WHEN %(upto)s::bigint IS NOT NULL THEN unapplied_since END
WHERE id = %(batch_id)s

-- name: reopen_paused_batches
-- A paused batch whose items were all settled meanwhile is reported as completed: reopened, it runs.
UPDATE batches b SET state = 'running'
WHERE b.id = ANY(%(batches)s) AND b.state = 'paused' AND b.planning IS NULL
    AND NOT EXISTS (SELECT FROM batch_items u WHERE u.batch_id = b.id AND u.settled_at IS NULL)

-- name: make_items_not_due
-- Nothing of a paused batch is due, which keeps the index of due items short.
UPDATE batch_items SET publish_at = NULL
WHERE batch_id = %(batch_id)s AND member_id > %(after)s AND member_id <= %(upto)s
    AND settled_at IS NULL AND publish_at IS NOT NULL

-- name: make_items_due
-- Everything unsettled: messages that came during the pause were acknowledged without being processed. All chunks give
-- the same time, so that items are published in the shuffled order. Workers may be settling these items at this moment:
-- locked in their order, and due only if still unsettled.
WITH open AS MATERIALIZED (
    SELECT batch_id, member_id FROM batch_items
    WHERE batch_id = %(batch_id)s AND member_id > %(after)s AND member_id <= %(upto)s AND settled_at IS NULL
    ORDER BY member_id FOR UPDATE
)
UPDATE batch_items i SET publish_at = %(due)s
FROM open o WHERE i.batch_id = o.batch_id AND i.member_id = o.member_id

-- name: cancel_deliveries
-- Deliveries that are not in flight and that no other batch will send. Settled items count, too: a worker that recorded
-- a retry when the cancel came has settled its item and left the key in `retry`.
WITH open AS MATERIALIZED (
    SELECT d.event_id, d.action, d.member_id, d.slot
    FROM batch_items i
    JOIN batches b ON b.id = i.batch_id
    JOIN events e ON e.id = b.event_id
    CROSS JOIN LATERAL unnest(i.roles) AS r(role)
    CROSS JOIN LATERAL (
        SELECT d.event_id, d.action, d.member_id, d.slot FROM deliveries d
        WHERE d.event_id = b.event_id AND d.action = b.action AND d.member_id = i.member_id
            AND d.slot = {{slot_of_role}} AND d.state IN ('planned', 'retry')
        FOR UPDATE
    ) d
    WHERE i.batch_id = %(batch_id)s AND i.member_id > %(after)s AND i.member_id <= %(upto)s AND NOT EXISTS (
        SELECT FROM batches o JOIN batch_items oi ON oi.batch_id = o.id
        WHERE o.event_id = b.event_id AND o.action = b.action AND o.id <> b.id AND o.state <> 'cancelled'
            AND oi.member_id = i.member_id AND oi.settled_at IS NULL
            AND (e.role_policy = 'one' OR r.role = ANY(oi.roles))
    )
)
UPDATE deliveries d SET state = 'skipped', reason = 'batch_cancelled', batch_id = %(batch_id)s, not_before = NULL,
    updated_at = now()
FROM open o
WHERE d.event_id = o.event_id AND d.action = o.action AND d.member_id = o.member_id AND d.slot = o.slot
RETURNING d.event_id, d.action, d.member_id, d.slot

-- name: settle_cancelled_items
-- As `settle_items`, from the batch's items instead of messages. What this batch has in flight stays open, and is logged
-- with its outcome. A key without a row in the ledger can only be a leftover: it ends here, too.
WITH evaluated AS MATERIALIZED (
    SELECT i.batch_id, i.member_id, {{slot_of_role}} AS slot, coalesce(d.role, r.role) AS role,
        coalesce(l.partition, i.partition) AS partition, coalesce(l.kafka_offset, i.kafka_offset) AS kafka_offset,
        l.status IN ('sent', 'failed', 'skipped')
            AND (d.state, d.batch_id) IS DISTINCT FROM ('handing_off', b.id) AS is_logged,
        CASE WHEN d.state IS NULL THEN 'skipped' ELSE {{final_status}} END AS final_status,
        CASE WHEN d.state IS NULL THEN 'batch_cancelled' ELSE {{final_reason}} END AS reason,
        CASE WHEN d.state = 'sent' AND d.batch_id IS DISTINCT FROM b.id THEN 0 ELSE coalesce(d.attempts, 0) END
            AS attempts,
        CASE WHEN d.state = 'sent' AND d.batch_id = b.id THEN d.updated_at ELSE now() END AS at
    FROM batches b
    JOIN batch_items i ON i.batch_id = b.id
    JOIN events e ON e.id = b.event_id
    CROSS JOIN LATERAL unnest(i.roles) AS r(role)
    LEFT JOIN LATERAL (
        SELECT * FROM deliveries
        WHERE event_id = b.event_id AND action = b.action AND member_id = i.member_id AND slot = {{slot_of_role}}
        OFFSET 0
    ) d ON true
    LEFT JOIN LATERAL (
        SELECT status, partition, kafka_offset FROM log_entries
        WHERE batch_id = i.batch_id AND member_id = i.member_id AND slot = {{slot_of_role}} OFFSET 0
    ) l ON true
    WHERE b.id = %(batch_id)s AND i.settled_at IS NULL AND i.member_id > %(after)s AND i.member_id <= %(upto)s
), entries AS (
    SELECT batch_id, member_id, slot, role, final_status AS status, reason, attempts, at, partition, kafka_offset
    FROM evaluated WHERE final_status IS NOT NULL AND is_logged IS NOT TRUE
), logged AS (
    {{insert_log_entries}}
), ended AS MATERIALIZED (
    SELECT batch_id, member_id FROM evaluated
    GROUP BY batch_id, member_id HAVING bool_and(final_status IS NOT NULL OR is_logged IS TRUE)
)
UPDATE batch_items i SET settled_at = now(), publish_at = NULL
FROM ended
WHERE i.batch_id = ended.batch_id AND i.member_id = ended.member_id

-- name: next_failed
-- Where the next chunk of a retry ends.
SELECT max(member_id) AS upto FROM (
    SELECT member_id FROM log_entries WHERE batch_id = %(batch_id)s AND member_id > %(after)s AND status = 'failed'
    ORDER BY member_id LIMIT %(limit)s
) chunk

-- name: retry_deliveries
-- Deliveries that failed in this batch, and are still failed in the ledger, are planned again with all their attempts.
-- Not those of an archived batch, whose rows are being removed, and none of members whom the operator may not see.
WITH failed AS MATERIALIZED (
    SELECT l.batch_id, d.event_id, d.action, d.member_id, d.slot
    FROM log_entries l
    JOIN batches b ON b.id = l.batch_id AND b.archived IS NULL
    JOIN batch_items i ON i.batch_id = l.batch_id AND i.member_id = l.member_id
    CROSS JOIN LATERAL (
        SELECT d.event_id, d.action, d.member_id, d.slot FROM deliveries d
        WHERE d.event_id = b.event_id AND d.action = b.action AND d.member_id = l.member_id AND d.slot = l.slot
            AND d.state = 'failed'
        FOR UPDATE
    ) d
    WHERE l.batch_id = %(batch_id)s AND l.member_id > %(after)s AND l.member_id <= %(upto)s AND l.status = 'failed'
        AND EXISTS (SELECT FROM members m WHERE m.id = l.member_id AND {{may_be_named}})
), reopened AS (
    UPDATE deliveries d SET state = 'planned', attempts = 0, reason = NULL, reply = NULL, not_before = NULL,
        first_refused_at = NULL, batch_id = NULL, updated_at = now()
    FROM failed f
    WHERE d.event_id = f.event_id AND d.action = f.action AND d.member_id = f.member_id AND d.slot = f.slot
    RETURNING f.batch_id, d.member_id, d.slot
), logged AS (
    UPDATE log_entries l SET status = 'retry', attempts = 0, at = now()
    FROM reopened r
    WHERE l.batch_id = r.batch_id AND l.member_id = r.member_id AND l.slot = r.slot
), due AS (
    UPDATE batch_items i SET settled_at = NULL, publish_at = CASE b.state WHEN 'running' THEN now() END
    FROM (SELECT DISTINCT batch_id, member_id FROM reopened) r
    JOIN batches b ON b.id = r.batch_id
    WHERE i.batch_id = r.batch_id AND i.member_id = r.member_id
)
SELECT count(*) AS n FROM reopened

-- name: count_failed
-- How many deliveries `retry_deliveries` would plan again.
SELECT count(*) AS n
FROM log_entries l
JOIN batches b ON b.id = l.batch_id AND b.archived IS NULL
JOIN deliveries d ON d.event_id = b.event_id AND d.action = b.action AND d.member_id = l.member_id AND d.slot = l.slot
    AND d.state = 'failed'
JOIN members m ON m.id = l.member_id
WHERE l.batch_id = %(batch_id)s AND l.status = 'failed' AND {{may_be_named}}

-- fragment: unresolved_deliveries
-- Unknown deliveries of an event, or of one of its members, as far as the operator may see the members.
FROM deliveries d JOIN members m ON m.id = d.member_id
WHERE d.event_id = %(event_id)s AND d.state = 'unknown'
    AND (%(member_id)s::bigint IS NULL OR d.member_id = %(member_id)s) AND {{may_be_named}}

-- name: unknown_deliveries
-- What the next chunk of a resolve is about. No lock: the next statement looks again.
SELECT d.action, d.member_id, d.slot {{unresolved_deliveries}}
ORDER BY d.action, d.member_id, d.slot LIMIT %(limit)s

-- name: count_unknown
-- How many deliveries a resolve would decide about.
SELECT count(*) AS n {{unresolved_deliveries}}

-- name: resolve_deliveries
-- An operator's verdict on unknown deliveries, none of them of a member whom they may not see. `resend` plans them again under a new fence, for the batches whose logs
-- have them as unknown; where all of those are cancelled, or removed, they are skipped and open to a new batch.
WITH unresolved AS MATERIALIZED (
    SELECT d.event_id, d.action, d.member_id, d.slot,
        EXISTS (
            SELECT FROM log_entries l
            JOIN batches b ON b.id = l.batch_id
            JOIN batch_items i ON i.batch_id = l.batch_id AND i.member_id = l.member_id
            WHERE l.member_id = d.member_id AND l.slot = d.slot AND l.status = 'unknown'
                AND b.event_id = d.event_id AND b.action = d.action AND b.state <> 'cancelled' AND b.archived IS NULL
        ) AS has_batch
    FROM jsonb_to_recordset(%(wanted)s) AS w(action text, member_id bigint, slot text)
    CROSS JOIN LATERAL (
        SELECT d.event_id, d.action, d.member_id, d.slot FROM deliveries d
        WHERE d.event_id = %(event_id)s AND d.action = w.action AND d.member_id = w.member_id AND d.slot = w.slot
            AND d.state = 'unknown'
            AND EXISTS (SELECT FROM members m WHERE m.id = d.member_id AND {{may_be_named}})
        FOR UPDATE
    ) d
), verdict AS MATERIALIZED (
    SELECT *, CASE
        WHEN %(verdict)s <> 'resend' THEN %(verdict)s
        WHEN has_batch THEN 'planned'
        ELSE 'skipped'
    END AS state
    FROM unresolved
)
UPDATE deliveries d SET state = v.state,
    reason = CASE v.state WHEN 'planned' THEN NULL WHEN 'skipped' THEN 'batch_cancelled' ELSE %(reason)s END,
    fence = d.fence + CASE %(verdict)s WHEN 'resend' THEN 1 ELSE 0 END,
    attempts = CASE %(verdict)s WHEN 'resend' THEN 0 ELSE d.attempts END,
    first_refused_at = CASE WHEN %(verdict)s <> 'resend' THEN d.first_refused_at END,
    batch_id = CASE v.state WHEN 'planned' THEN NULL ELSE d.batch_id END,
    reply = NULL, owner = NULL, lease_until = NULL, updated_at = now()
FROM verdict v
WHERE d.event_id = v.event_id AND d.action = v.action AND d.member_id = v.member_id AND d.slot = v.slot
RETURNING d.event_id, d.action, d.member_id, d.slot, d.state

-- name: unknown_log_entries
-- The log entries that have these deliveries as unknown.
SELECT l.batch_id, t.event_id, t.action, t.member_id, t.slot
FROM jsonb_to_recordset(%(touched)s) AS t(event_id bigint, action text, member_id bigint, slot text)
CROSS JOIN LATERAL (
    SELECT l.batch_id FROM log_entries l
    WHERE l.member_id = t.member_id AND l.status = 'unknown' AND l.slot = t.slot OFFSET 0
) l
JOIN batches b ON b.id = l.batch_id AND b.event_id = t.event_id AND b.action = t.action

-- name: correct_resolved_log_entries
-- Those entries say what the ledger now says; opened again, they are pending.
UPDATE log_entries l SET status = coalesce({{final_status}}, 'retry'), reason = {{final_reason}},
    attempts = CASE WHEN d.state = 'sent' AND d.batch_id IS DISTINCT FROM b.id THEN 0 ELSE d.attempts END, at = now()
FROM jsonb_to_recordset(%(entries)s)
    AS t(batch_id bigint, event_id bigint, action text, member_id bigint, slot text), batches b, deliveries d
WHERE b.id = t.batch_id
    AND l.batch_id = t.batch_id AND l.member_id = t.member_id AND l.slot = t.slot
    AND d.event_id = t.event_id AND d.action = t.action AND d.member_id = t.member_id AND d.slot = t.slot

-- name: settle_resolved_items
-- An item is settled when each of its log entries is final, and due again otherwise.
WITH summed AS MATERIALIZED (
    SELECT t.batch_id, t.member_id, b.state = 'paused' AS paused, (
        SELECT count(*) FROM log_entries l
        JOIN deliveries d ON d.event_id = b.event_id AND d.action = b.action AND d.member_id = l.member_id
            AND d.slot = l.slot
        WHERE l.batch_id = t.batch_id AND l.member_id = t.member_id AND l.status <> 'retry'
            AND {{final_status}} IS NOT NULL
    ) AS finals
    FROM (
        SELECT DISTINCT batch_id, member_id
        FROM jsonb_to_recordset(%(entries)s) AS u(batch_id bigint, member_id bigint)
    ) t
    JOIN batches b ON b.id = t.batch_id
)
UPDATE batch_items i SET
    settled_at = CASE WHEN s.finals >= cardinality(i.roles) THEN coalesce(i.settled_at, now()) END,
    publish_at = CASE WHEN s.finals < cardinality(i.roles) AND NOT s.paused THEN now() END
FROM summed s
WHERE i.batch_id = s.batch_id AND i.member_id = s.member_id AND i.excluded IS NULL

-- name: record_resolve_error
UPDATE batches b SET first_error = %(reason)s
WHERE b.id = ANY(%(batches)s) AND b.first_error IS NULL
    AND EXISTS (SELECT FROM log_entries l WHERE l.batch_id = b.id AND l.status = 'failed')

-- name: items_to_replay
-- Every planned item, in the order of publishing. Without a publish claim: what is due stays due. Its message has the
-- timestamp of the one before; of an item that an earlier version published the receipt's time is known.
SELECT i.batch_id, i.member_id, i.roles, now() - interval '1 day' AS claimed_until, b.event_id, b.action,
    coalesce(i.kafka_timestamp, (extract(epoch FROM i.published_at) * 1000)::bigint) AS timestamp
FROM batch_items i JOIN batches b ON b.id = i.batch_id
WHERE i.batch_id = %(batch_id)s AND i.excluded IS NULL
ORDER BY i.position

