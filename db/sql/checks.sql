-- Rows that must not exist. Each statement names the first few that it finds, and counts them all. Deliveries are named
-- EVENT/ACTION/MEMBER/SLOT, items and log entries BATCH/MEMBER. Whole tables are read: for `doctor` only.

-- fragment: delivery_name
concat_ws('/', d.event_id, d.action, d.member_id, d.slot)

-- name: check_planned_without_item
SELECT {{delivery_name}} AS name, count(*) OVER () AS n FROM deliveries d
WHERE d.state IN ('planned', 'retry') AND NOT EXISTS (
    SELECT FROM batches b JOIN batch_items i ON i.batch_id = b.id
    WHERE b.event_id = d.event_id AND b.action = d.action AND i.member_id = d.member_id AND i.settled_at IS NULL
)
ORDER BY d.event_id, d.member_id, d.slot LIMIT 5

-- name: check_stuck_items
SELECT concat_ws('/', i.batch_id, i.member_id) AS name, count(*) OVER () AS n
FROM batch_items i JOIN batches b ON b.id = i.batch_id
WHERE i.settled_at IS NULL AND i.publish_at IS NULL AND i.kafka_offset IS NULL AND b.state <> 'paused'
    -- After a resume the items become due in chunks.
    AND b.unapplied_since IS NULL
ORDER BY i.batch_id, i.member_id LIMIT 5

-- name: check_overdue_items
-- Due for over a minute, although the topic is nearly empty: behind a backlog they wait for the mail server, not for a
-- dispatcher, however long that takes. Nor for a dispatcher while it may publish nothing of their batch.
SELECT concat_ws('/', i.batch_id, i.member_id) AS name, count(*) OVER () AS n
FROM batch_items i JOIN batches b ON b.id = i.batch_id
WHERE i.publish_at < now() - interval '1 minute' AND {{may_be_published_now}} AND (
    SELECT count(*) FROM (
        SELECT FROM batch_items i JOIN batches b ON b.id = i.batch_id AND b.state <> 'paused'
        WHERE {{is_on_topic}} AND i.published_at > now() - interval '1 day' LIMIT %(nearly_empty)s
    ) x
) < %(nearly_empty)s
ORDER BY i.publish_at, i.batch_id, i.member_id LIMIT 5

-- name: check_unread_items
-- On the topic for longer than any worker takes, and in no worker's hands. Of a paused batch they are left alone.
SELECT concat_ws('/', i.batch_id, i.member_id) AS name, count(*) OVER () AS n
FROM batch_items i JOIN batches b ON b.id = i.batch_id AND b.state <> 'paused'
WHERE {{is_on_topic}} AND (i.published_at < now() - %(seconds)s * interval '1 second') IS NOT FALSE
    AND NOT {{is_under_lease}} AND NOT {{is_set_aside}}
ORDER BY i.published_at NULLS FIRST, i.batch_id, i.member_id LIMIT 5

-- name: check_unapplied_decisions
SELECT b.id::text AS name, count(*) OVER () AS n FROM batches b
WHERE b.unapplied_since < now() - interval '1 minute' AND b.planning IS NULL
ORDER BY b.id LIMIT 5

-- name: check_waiting_to_be_planned
SELECT b.id::text AS name, count(*) OVER () AS n FROM batches b
WHERE b.planning IS NOT NULL AND b.started_at < now() - interval '5 minutes'
ORDER BY b.id LIMIT 5

-- name: check_items_set_aside
SELECT concat_ws('/', i.batch_id, i.member_id) AS name, count(*) OVER () AS n
FROM batch_items i JOIN batches b ON b.id = i.batch_id
WHERE i.settled_at IS NULL AND {{is_set_aside}}
ORDER BY i.batch_id, i.member_id LIMIT 5

-- name: check_expired_leases
SELECT {{delivery_name}} AS name, count(*) OVER () AS n FROM deliveries d
WHERE d.state = 'handing_off' AND d.lease_until < now() - interval '10 minutes'
ORDER BY d.event_id, d.member_id, d.slot LIMIT 5

-- name: check_times_far_ahead
-- No setting allows a lease, a back-off or a publish claim that long.
SELECT name, count(*) OVER () AS n FROM (
    SELECT {{delivery_name}} AS name FROM deliveries d
    WHERE (d.state = 'handing_off' AND d.lease_until > now() + interval '1 day')
        OR (d.state = 'retry' AND d.not_before > now() + interval '8 days')
    UNION ALL
    SELECT concat_ws('/', batch_id, member_id) FROM batch_items WHERE publish_at > now() + interval '8 days'
) far_ahead
ORDER BY name LIMIT 5

-- name: check_logs_without_ledger
SELECT concat_ws('/', l.batch_id, l.member_id) AS name, count(*) OVER () AS n
FROM log_entries l JOIN batches b ON b.id = l.batch_id
LEFT JOIN deliveries d ON d.event_id = b.event_id AND d.action = b.action AND d.member_id = l.member_id
    AND d.slot = l.slot
WHERE (l.status = 'sent' AND (d.state IS DISTINCT FROM 'sent' OR d.batch_id IS DISTINCT FROM l.batch_id))
    OR (l.status = 'skipped' AND l.reason = 'already_sent' AND d.state IS DISTINCT FROM 'sent')
ORDER BY l.batch_id, l.member_id LIMIT 5

-- name: check_entries_without_item
SELECT concat_ws('/', l.batch_id, l.member_id) AS name, count(*) OVER () AS n
FROM log_entries l LEFT JOIN batch_items i ON i.batch_id = l.batch_id AND i.member_id = l.member_id
WHERE i.batch_id IS NULL
ORDER BY l.batch_id, l.member_id LIMIT 5

-- name: check_settled_without_entry
SELECT concat_ws('/', i.batch_id, i.member_id) AS name, count(*) OVER () AS n
FROM batch_items i
LEFT JOIN (
    SELECT batch_id, member_id, count(*) AS entries FROM log_entries WHERE status <> 'retry'
    GROUP BY batch_id, member_id
) l ON l.batch_id = i.batch_id AND l.member_id = i.member_id
WHERE i.settled_at IS NOT NULL AND i.excluded IS NULL AND cardinality(i.roles) > coalesce(l.entries, 0)
ORDER BY i.batch_id, i.member_id LIMIT 5

-- name: check_claims_without_batch
SELECT {{delivery_name}} AS name, count(*) OVER () AS n
FROM deliveries d LEFT JOIN batches b ON b.id = d.batch_id
WHERE d.batch_id IS NOT NULL AND b.id IS NULL
ORDER BY d.event_id, d.member_id, d.slot LIMIT 5

-- name: check_rows_without_origin
-- No foreign key keeps these (ADR 44): nothing of ours deletes a member, an event or a batch.
SELECT x.name, count(*) OVER () AS n
FROM (
    SELECT {{delivery_name}} AS name FROM deliveries d
    WHERE NOT EXISTS (SELECT FROM members m WHERE m.id = d.member_id)
        OR NOT EXISTS (SELECT FROM events e WHERE e.id = d.event_id)
    UNION ALL
    SELECT concat_ws('/', v.event_id, v.role, v.member_id) FROM invitations v
    WHERE NOT EXISTS (SELECT FROM members m WHERE m.id = v.member_id)
        OR NOT EXISTS (SELECT FROM events e WHERE e.id = v.event_id)
    UNION ALL
    SELECT concat_ws('/', i.batch_id, i.member_id) FROM batch_items i
    WHERE NOT EXISTS (SELECT FROM batches b WHERE b.id = i.batch_id)
) x
ORDER BY x.name LIMIT 5

-- name: check_slots_of_other_policy
SELECT {{delivery_name}} AS name, count(*) OVER () AS n
FROM deliveries d JOIN events e ON e.id = d.event_id
WHERE (d.slot = 'member') <> (e.role_policy = 'one')
ORDER BY d.event_id, d.member_id, d.slot LIMIT 5

-- name: check_lost_items
SELECT concat_ws('/', i.batch_id, i.member_id) AS name, count(*) OVER () AS n
FROM (
    {{lost_candidates}}
) c
JOIN batches b ON b.id = c.batch_id AND {{may_be_lost}}
CROSS JOIN LATERAL (
    SELECT i.batch_id, i.member_id FROM batch_items i
    WHERE i.batch_id = c.batch_id AND i.member_id = c.member_id AND {{is_lost}} OFFSET 0
) i
ORDER BY i.batch_id, i.member_id LIMIT 5

-- name: check_shared_mailboxes
-- Members whose addresses mean one mailbox. Not impossible: one of them is mailed. By their ids, never by the address.
SELECT string_agg(id::text, ' = ' ORDER BY id) AS name, count(*) OVER () AS n
FROM members WHERE shares_mailbox GROUP BY mailbox HAVING count(*) > 1
ORDER BY min(id) LIMIT 20

-- name: dispatchers
SELECT count(*) AS n FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'bidden-dispatcher' || {{in_schema}}

-- name: seconds_since_outcome
SELECT extract(epoch FROM now() - max(updated_at))::float8 AS seconds FROM deliveries WHERE state <> 'planned'

-- name: database_clock
SELECT extract(epoch FROM clock_timestamp())::float8 AS seconds

-- name: guards
-- CHECK constraints, triggers that are enabled, and functions.
SELECT conname::text AS name FROM pg_constraint
WHERE contype = 'c' AND connamespace = current_schema()::regnamespace
UNION ALL
SELECT tgname FROM pg_trigger
WHERE NOT tgisinternal AND tgenabled = 'O' AND tgrelid IN (
    SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace
)
UNION ALL
SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
