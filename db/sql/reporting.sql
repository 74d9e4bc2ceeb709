-- What became of batches, given back to the source (`report` in its file): what differs from what it was given before.
-- Of a batch whose log cannot change any more but by a retry or a verdict, only the entries are kept that these may change.

-- fragment: final_entry
-- Of the log entry l: it is no delivery that is still to come.
l.status IN ('sent', 'failed', 'unknown', 'skipped')

-- fragment: entry_reached_before
-- Of the log entry l of batch b: it is reported as `bidden status` counts it.
(l.status = 'failed' AND EXISTS (
    SELECT FROM deliveries d
    WHERE d.event_id = b.event_id AND d.action = b.action AND d.member_id = l.member_id AND d.slot = l.slot
        AND {{is_reached_before}}
))

-- fragment: reported_status
CASE WHEN {{entry_reached_before}} THEN 'skipped' ELSE l.status END

-- fragment: reported_reason
CASE WHEN {{entry_reached_before}} THEN 'already_sent' ELSE l.reason END

-- name: lock_reporting
-- One process at a time, until its transaction ends: an older outcome must not arrive after a newer one.
SELECT pg_try_advisory_xact_lock(hashtextextended('bidden: report', {{schema_seed}})) AS is_locked

-- name: batches_to_report
-- Planned batches that the source does not have whole, and those whose failed and unknown entries are others by now. What it
-- did not take it is offered again after some minutes.
SELECT b.id, coalesce(r.is_settled, false) AS is_settled, r.digest
FROM batches b LEFT JOIN reported_batches r ON r.batch_id = b.id
WHERE b.archived IS NULL AND b.planning IS NULL
    AND (r.refused_at IS NULL OR r.refused_at < now() - %(refused_seconds)s * interval '1 second')
    AND (r.is_settled IS NOT TRUE OR EXISTS (
        SELECT FROM reported_entries e
        LEFT JOIN log_entries l ON l.batch_id = e.batch_id AND l.member_id = e.member_id AND l.slot = e.slot
        WHERE e.batch_id = b.id
            AND ({{reported_status}}, md5({{reported_reason}})) IS DISTINCT FROM (e.status, e.reason_digest)
    ))
ORDER BY r.refused_at NULLS FIRST, b.id

-- name: batches_not_taken
-- Begun so long ago, and the source still refuses them, or a part. None where the source is given no outcomes.
SELECT count(*) FILTER (WHERE is_late) AS late, min(id) FILTER (WHERE is_late) AS first
FROM (
    SELECT b.id, r.refused_at IS NOT NULL AND b.started_at < now() - %(late_seconds)s * interval '1 second' AS is_late
    FROM reported_batches r JOIN batches b ON b.id = r.batch_id WHERE b.archived IS NULL
) b
HAVING count(*) > 0

-- name: batch_to_report
-- What `batch_status` does not say.
SELECT e.ref, ARRAY(SELECT chapter_id FROM event_chapters WHERE event_id = e.id ORDER BY position) AS chapter_ids,
    (SELECT count(*) FROM batch_items i WHERE i.batch_id = b.id AND i.excluded IS NOT NULL) AS excluded
FROM batches b JOIN events e ON e.id = b.event_id WHERE b.id = %(batch_id)s

-- name: entries_to_report
-- The next entries, behind that one, that the source was not given as they are. Of a settled batch those alone that were kept.
SELECT x.member_id, x.slot, x.role, x.status, x.reason, x.at, v.token, coalesce((
    SELECT ec.chapter_id FROM event_chapters ec JOIN groups ON groups.chapter_id = ec.chapter_id
    JOIN subscriptions s ON s.group_id = groups.id AND s.member_id = x.member_id
    WHERE ec.event_id = x.event_id AND (x.role IS NULL OR {{role_of_list}} = x.role)
    ORDER BY ec.position LIMIT 1
), (SELECT chapter_id FROM event_chapters WHERE event_id = x.event_id ORDER BY position LIMIT 1)) AS chapter_id
FROM (
    SELECT b.event_id, x.*
    FROM batches b
    CROSS JOIN LATERAL (
        SELECT l.member_id, l.slot, l.role, {{reported_status}} AS status, {{reported_reason}} AS reason, l.at
        FROM log_entries l
        WHERE l.batch_id = b.id AND {{final_entry}} AND (l.member_id, l.slot) > (%(after_member)s, %(after_slot)s)
        UNION ALL
        SELECT i.member_id, '', NULL, 'excluded', i.excluded, i.settled_at FROM batch_items i
        WHERE i.batch_id = b.id AND i.excluded IS NOT NULL AND (i.member_id, '') > (%(after_member)s, %(after_slot)s)
    ) x
    LEFT JOIN reported_entries r ON r.batch_id = b.id AND r.member_id = x.member_id AND r.slot = x.slot
    WHERE b.id = %(batch_id)s AND (x.status, md5(x.reason)) IS DISTINCT FROM (r.status, r.reason_digest)
        AND (r.batch_id IS NOT NULL OR NOT %(is_settled)s)
    ORDER BY x.member_id, x.slot LIMIT %(limit)s
) x
LEFT JOIN invitations v ON v.event_id = x.event_id AND v.member_id = x.member_id AND v.role = x.role
ORDER BY x.member_id, x.slot

-- name: note_reported_entries
INSERT INTO reported_entries (batch_id, member_id, slot, status, reason_digest)
SELECT %(batch_id)s, e.member_id, e.slot, e.status, md5(e.reason)
FROM jsonb_to_recordset(%(entries)s) AS e(member_id bigint, slot text, status text, reason text)
ON CONFLICT (batch_id, member_id, slot) DO UPDATE SET status = excluded.status, reason_digest = excluded.reason_digest

-- name: note_reported_batch
INSERT INTO reported_batches (batch_id, digest, is_settled, reported_at) VALUES (%(batch_id)s, %(digest)s, false, now())
ON CONFLICT (batch_id) DO UPDATE SET digest = excluded.digest, reported_at = excluded.reported_at, refused_at = NULL

-- name: note_refused_batch
INSERT INTO reported_batches (batch_id, is_settled, refused_at) VALUES (%(batch_id)s, false, now())
ON CONFLICT (batch_id) DO UPDATE SET refused_at = excluded.refused_at

-- name: note_settled_batch
WITH kept AS (
    DELETE FROM reported_entries WHERE batch_id = %(batch_id)s AND status NOT IN ('failed', 'unknown')
)
UPDATE reported_batches SET is_settled = true WHERE batch_id = %(batch_id)s

-- name: forget_archived_reports
-- What has left the log cannot change any more.
DELETE FROM reported_entries e USING batches b WHERE b.id = e.batch_id AND b.archived IS NOT NULL

-- name: forget_reports
WITH entries AS (DELETE FROM reported_entries) DELETE FROM reported_batches
