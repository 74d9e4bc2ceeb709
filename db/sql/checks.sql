-- What must never be. Each statement counts what it finds.

-- name: check_unmarked_planned
SELECT count(*) AS n FROM deliveries d
WHERE d.state IN ('planned', 'retry') AND NOT EXISTS (
    SELECT FROM batches b JOIN batch_items i ON i.batch_id = b.id
    WHERE b.event_id = d.event_id AND b.action = d.action AND i.member_id = d.member_id AND i.settled_at IS NULL
)

-- name: check_stuck_items
SELECT count(*) AS n FROM batch_items
WHERE settled_at IS NULL AND publish_at IS NULL AND kafka_offset IS NULL

-- name: check_overdue_items
SELECT count(*) AS n FROM batch_items i JOIN batches b ON b.id = i.batch_id
WHERE i.publish_at < now() - interval '1 minute' AND b.state <> 'paused'

-- name: check_expired_hand_overs
SELECT count(*) AS n FROM deliveries
WHERE state = 'handing_off' AND lease_until < now() - interval '10 minutes'

-- name: check_logs_without_ledger
SELECT count(*) AS n
FROM log_entries l JOIN batches b ON b.id = l.batch_id
LEFT JOIN deliveries d ON d.event_id = b.event_id AND d.action = b.action AND d.member_id = l.member_id
    AND d.slot = l.slot
WHERE (l.status = 'sent' AND (d.state IS DISTINCT FROM 'sent' OR d.batch_id <> l.batch_id))
    OR (l.status = 'skipped' AND l.reason = 'already_sent' AND d.state IS DISTINCT FROM 'sent')

-- name: check_doubled_invitations
SELECT count(*) AS n FROM deliveries one JOIN deliveries other
    ON other.event_id = one.event_id AND other.action = one.action AND other.member_id = one.member_id
WHERE one.slot = 'member' AND other.slot <> 'member'
