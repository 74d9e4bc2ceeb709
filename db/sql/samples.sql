-- What a dispatcher samples for its metrics, every few seconds. Each statement finds its rows by a partial index.

-- name: sample_due
-- Items that are due and may be published, and for how many seconds the oldest has been.
WITH RECURSIVE {{due_queues}}
SELECT coalesce(sum(d.items), 0)::bigint AS items,
    coalesce(extract(epoch FROM now() - min(d.oldest)), 0)::float8 AS seconds
FROM queues q
JOIN batches b ON b.id = q.batch_id AND {{may_be_published_now}}
CROSS JOIN LATERAL (SELECT {{first_of_queue}}) f
CROSS JOIN LATERAL (
    SELECT count(*) AS items, min(i.publish_at) AS oldest FROM batch_items i
    WHERE i.batch_id = q.batch_id AND (i.kafka_offset IS NOT NULL) = q.again AND i.publish_at <= now()
        AND (i.publish_at, i.position) >= (f.from_at, f.from_position)
) d

-- name: sample_open_batches
-- By state: batches with items that are not settled or that wait to be planned, these items, and the age of the oldest.
-- Found by jumps in ix_batch_items_unsettled: most batches that have a log are complete.
WITH RECURSIVE unsettled AS (
    (SELECT i.batch_id FROM batch_items i WHERE i.settled_at IS NULL ORDER BY i.batch_id LIMIT 1)
    UNION ALL
    SELECT n.batch_id
    FROM unsettled x
    CROSS JOIN LATERAL (
        SELECT i.batch_id FROM batch_items i
        WHERE i.settled_at IS NULL AND i.batch_id > x.batch_id ORDER BY i.batch_id LIMIT 1
    ) n
), open AS (
    SELECT batch_id FROM unsettled
    UNION
    SELECT id FROM batches WHERE planning IS NOT NULL
)
SELECT b.state, count(*) AS batches, sum(u.items)::bigint AS items,
    extract(epoch FROM now() - min(b.started_at))::float8 AS seconds
FROM open o
CROSS JOIN LATERAL (SELECT * FROM batches WHERE id = o.batch_id OFFSET 0) b
CROSS JOIN LATERAL (SELECT count(*) AS items FROM batch_items WHERE batch_id = b.id AND settled_at IS NULL) u
WHERE b.archived IS NULL AND b.state IN ('running', 'paused')
GROUP BY b.state

-- name: sample_unknown
-- Deliveries that are unknown now and that a log calls so.
SELECT count(*) AS n
FROM (
    SELECT DISTINCT b.event_id, b.action, l.member_id, l.slot
    FROM log_entries l JOIN batches b ON b.id = l.batch_id WHERE l.status = 'unknown'
) l
CROSS JOIN LATERAL (
    SELECT FROM deliveries
    WHERE event_id = l.event_id AND action = l.action AND member_id = l.member_id AND slot = l.slot
        AND state = 'unknown' OFFSET 0
) d

-- name: sample_unknown_without_entry
-- The others: their logs were removed. Reads the whole ledger.
SELECT count(*) AS n FROM deliveries d
WHERE d.state = 'unknown' AND NOT EXISTS (
    SELECT FROM log_entries l JOIN batches b ON b.id = l.batch_id AND b.event_id = d.event_id AND b.action = d.action
    WHERE l.member_id = d.member_id AND l.slot = d.slot AND l.status = 'unknown'
)

-- name: sample_webhooks
SELECT count(*) AS n FROM batch_webhooks w
WHERE w.due_at <= now()
    AND NOT EXISTS (SELECT FROM batch_items u WHERE u.batch_id = w.batch_id AND u.settled_at IS NULL)
    AND NOT EXISTS (SELECT FROM batches b WHERE b.id = w.batch_id AND b.planning IS NOT NULL)

-- name: concluded_at
-- For a worker's counters: of what a cycle requested and did not claim, what the transaction that began at that time made
-- skipped or unknown. Only where something was not claimed, which is rare.
SELECT d.state, d.reason
FROM jsonb_to_recordset(%(requested)s) AS w(event_id bigint, action text, member_id bigint, slot text)
CROSS JOIN LATERAL (
    SELECT state, reason, updated_at FROM deliveries
    WHERE event_id = w.event_id AND action = w.action AND member_id = w.member_id AND slot = w.slot OFFSET 0
) d
WHERE d.state IN ('skipped', 'unknown') AND extract(epoch FROM d.updated_at)::float8 = %(at)s::float8
