-- What a batch's page says beside its numbers. Asked only where nothing was sent lately, or nothing at all.

-- name: idle_since
-- When anything last happened to a batch of which something could go out now. No row: all that is left waits for the time
-- of its next attempt, or the batch is not running.
SELECT x.at, extract(epoch FROM now() - x.at)::float8 AS seconds
FROM batches b CROSS JOIN LATERAL (
    SELECT greatest(
        b.started_at,
        (SELECT max(l.at) FROM log_entries l WHERE l.batch_id = b.id),
        (SELECT max(t.at) FROM audit_log t WHERE t.batch_id = b.id)
    ) AS at
) x
WHERE b.id = %(batch_id)s AND b.state = 'running' AND EXISTS (
    SELECT FROM batch_items u
    WHERE u.batch_id = b.id AND u.settled_at IS NULL AND NOT EXISTS (
        SELECT FROM deliveries d
        WHERE d.event_id = b.event_id AND d.action = b.action AND d.member_id = u.member_id AND d.not_before > now()
    )
)

-- name: is_being_placed
SELECT needs_placing IS TRUE AS placing FROM batches WHERE id = %(batch_id)s

-- name: all_sent_elsewhere
-- Whether every delivery of a batch was skipped because another batch had it.
SELECT bool_and(l.status = 'skipped' AND l.reason = 'already_sent') AS are
FROM log_entries l WHERE l.batch_id = %(batch_id)s
