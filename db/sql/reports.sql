-- Reports. Counts are derived from the rows each time.

-- fragment: state_of_batch
-- A batch is complete when it is planned and none of its items is unsettled (FM-24): derived, so that no process must
-- write it. OFFSET 0: by an index, for one batch after the other; never a hash of all unsettled items.
CASE
    WHEN b.state = 'cancelled' THEN 'cancelled'
    WHEN b.planning IS NULL
        AND NOT EXISTS (SELECT FROM batch_items u WHERE u.batch_id = b.id AND u.settled_at IS NULL OFFSET 0)
        THEN 'completed'
    ELSE b.state
END

-- fragment: numbers_of_batch
-- From the aliases b (batches), i and l (counts of its items and its log), f (`with_reached_elsewhere`) and a (the counts
-- of an archived one). The first error is told as long as something is wrong: when all was mended, there is none.
b.id AS batch_id, b.event_id, b.audience, {{state_of_batch}} AS state,
coalesce(a.planned, i.planned) AS planned, coalesce(a.deliveries, i.deliveries) AS deliveries,
coalesce(a.sent, l.sent) AS sent, {{failed_of_batch}} AS failed,
coalesce(a.unknown, l.unknown) AS unknown, coalesce(a.skipped, l.skipped + f.reached_before) AS skipped,
CASE WHEN b.archived IS NULL THEN i.deliveries - l.settled ELSE 0 END AS pending,
b.started_at,
CASE {{state_of_batch}}
    WHEN 'cancelled' THEN b.cancelled_at
    WHEN 'completed' THEN coalesce(a.last_settled_at, i.last_settled_at, b.started_at)
END AS completed_at,
CASE WHEN {{failed_of_batch}} + coalesce(a.unknown, l.unknown) > 0 OR {{state_of_batch}} <> 'completed'
    THEN b.first_error END AS error,
b.initiator, b.planning IS NOT NULL AS planning

-- fragment: failed_of_batch
coalesce(a.failed, l.failed - f.reached_before)

-- fragment: is_reached_elsewhere
-- Of the log entry l and its delivery d: it failed in this batch, and another batch, or another system, has reached the
-- member since.
(l.status = 'failed' AND d.state = 'sent' AND d.batch_id IS DISTINCT FROM l.batch_id)

-- fragment: is_reached_before
-- The same, by a batch that is older than this one. So it is reported as what a batch is told that comes after:
-- skipped, `already_sent`. The log of an older batch keeps what that batch did (FM-06).
(l.status = 'failed' AND d.state = 'sent' AND d.batch_id < l.batch_id)

-- fragment: with_reached_elsewhere
-- Of the batch b: how many these are, found by the index of failed ones.
CROSS JOIN LATERAL (
    SELECT count(*) AS reached_elsewhere, count(*) FILTER (WHERE {{is_reached_before}}) AS reached_before
    FROM log_entries l
    JOIN deliveries d ON d.event_id = b.event_id AND d.action = b.action AND d.member_id = l.member_id AND d.slot = l.slot
    WHERE l.batch_id = b.id AND {{is_reached_elsewhere}}
) f

-- fragment: has_errors
-- Of the batch b: whether a delivery of it is unknown now, or failed and was not reached elsewhere, or it could not be
-- planned.
(CASE
    WHEN b.archived IS NOT NULL THEN coalesce(
        (b.archived ->> 'wrong')::bigint, (b.archived ->> 'failed')::bigint + (b.archived ->> 'unknown')::bigint
    ) > 0
    ELSE EXISTS (
        SELECT FROM log_entries l
        LEFT JOIN deliveries d ON d.event_id = b.event_id AND d.action = b.action AND d.member_id = l.member_id
            AND d.slot = l.slot
        WHERE l.batch_id = b.id AND l.status IN ('failed', 'unknown') AND {{is_reached_elsewhere}} IS NOT TRUE
    ) OR (b.first_error IS NOT NULL AND NOT EXISTS (SELECT FROM batch_items i WHERE i.batch_id = b.id))
END)

-- fragment: with_archived
LEFT JOIN LATERAL jsonb_to_record(b.archived) AS a(planned bigint, deliveries bigint, sent bigint, failed bigint,
    unknown bigint, skipped bigint, last_settled_at timestamptz) ON true

-- name: batch_status
-- `planned` counts members; the five statuses count deliveries and sum to `deliveries`. A batch whose rows were removed
-- keeps its last counts.
SELECT {{numbers_of_batch}}
FROM batches b
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE excluded IS NULL) AS planned,
        coalesce(sum(cardinality(roles)), 0)::bigint AS deliveries, max(settled_at) AS last_settled_at
    FROM batch_items WHERE batch_id = b.id
) i
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE status = 'sent') AS sent,
        count(*) FILTER (WHERE status = 'failed') AS failed,
        count(*) FILTER (WHERE status = 'unknown') AS unknown,
        count(*) FILTER (WHERE status = 'skipped') AS skipped,
        count(*) FILTER (WHERE status <> 'retry') AS settled
    FROM log_entries WHERE batch_id = b.id
) l
{{with_reached_elsewhere}}
{{with_archived}}
WHERE %(batch_id)s::bigint IS NULL OR b.id = %(batch_id)s
ORDER BY b.id

-- name: batches_with_errors
SELECT b.id FROM batches b WHERE (%(batch_id)s::bigint IS NULL OR b.id = %(batch_id)s) AND {{has_errors}}

-- name: batch_exclusions
-- An archived batch may have rows left.
SELECT i.excluded AS reason, count(*) AS members
FROM batch_items i JOIN batches b ON b.id = i.batch_id AND b.archived IS NULL
WHERE i.batch_id = %(batch_id)s AND i.excluded IS NOT NULL GROUP BY i.excluded
UNION ALL
SELECT x.key, x.value::bigint
FROM batches b CROSS JOIN LATERAL jsonb_each_text(b.archived -> 'excluded') x
WHERE b.id = %(batch_id)s
ORDER BY reason

-- fragment: log_status
-- What the log entry l and the ledger's row d say of a delivery of a batch, as all reports do. What has no entry yet, or
-- waits for a retry, is pending.
CASE
    WHEN l.status IS NULL OR l.status = 'retry' THEN 'pending'
    WHEN {{is_reached_before}} THEN 'skipped'
    ELSE l.status
END

-- fragment: log_reason
CASE WHEN {{is_reached_before}} THEN 'already_sent' ELSE l.reason END

-- fragment: sent_by_batch
-- The batch that sent it, where another did; null also for another system.
CASE WHEN l.reason = 'already_sent' OR {{is_reached_elsewhere}} THEN d.batch_id END

-- name: batch_log
-- Every delivery of the batch, pending ones too. `sent_by_batch` is the batch that sent it, where another did.
SELECT i.member_id, coalesce(l.role, r.role) AS role,
    {{log_status}} AS status,
    {{log_reason}} AS reason, coalesce(l.attempts, 0) AS attempts, l.at,
    coalesce(l.partition, i.partition) AS partition, coalesce(l.kafka_offset, i.kafka_offset) AS "offset",
    {{sent_by_batch}} AS sent_by_batch,
    CASE WHEN l.status = 'sent' THEN d.reply END AS reply
FROM batch_items i
JOIN batches b ON b.id = i.batch_id
JOIN events e ON e.id = b.event_id
CROSS JOIN LATERAL unnest(i.roles) AS r(role)
LEFT JOIN log_entries l ON l.batch_id = i.batch_id AND l.member_id = i.member_id AND l.slot = {{slot_of_role}}
LEFT JOIN deliveries d ON d.event_id = b.event_id AND d.action = b.action AND d.member_id = i.member_id
    AND d.slot = {{slot_of_role}}
WHERE i.batch_id = %(batch_id)s AND i.excluded IS NULL
    AND (%(status)s::text IS NULL OR %(status)s = {{log_status}})
ORDER BY i.position, r.role

-- name: batch_excluded
SELECT i.member_id, NULL AS role, 'excluded' AS status, i.excluded AS reason, 0 AS attempts, i.settled_at AS at,
    NULL::int AS partition, NULL::bigint AS "offset"
FROM batch_items i WHERE i.batch_id = %(batch_id)s AND i.excluded IS NOT NULL ORDER BY i.member_id

-- name: why_reasons
-- Every reason against a mail to this member about this event now.
SELECT {{ineligibility_reasons}} AS reasons FROM events e CROSS JOIN members m
WHERE e.id = %(event_id)s AND m.id = %(member_id)s

-- name: why_deliveries
SELECT d.role, CASE WHEN d.state IN ('planned', 'handing_off', 'retry') THEN 'pending' ELSE d.state END AS status,
    d.reason, d.batch_id, d.updated_at AS at, d.attempts, d.reply
FROM deliveries d WHERE d.event_id = %(event_id)s AND d.member_id = %(member_id)s ORDER BY d.role

-- name: event_kind
SELECT kind FROM events WHERE id = %(event_id)s

-- name: event_of_ref
SELECT id FROM events WHERE ref = %(ref)s

-- name: event_of_longest_ref
SELECT id, ref FROM events WHERE ref = ANY(%(refs)s) ORDER BY length(ref) DESC LIMIT 1

-- name: ref_of_event
SELECT ref FROM events WHERE id = %(event_id)s

-- name: member_exists
SELECT FROM members WHERE id = %(member_id)s

-- fragment: audited
-- The deliveries that an audit counts: those due to members who are eligible now, and those with an outcome in the
-- ledger. `due_role` is null for a member who is no longer eligible.
{{subscribed}}, ineligible AS MATERIALIZED (
    {{ineligible_members}}
), due AS MATERIALIZED (
    SELECT s.member_id, {{slot_of_role}} AS slot, r.role AS due_role
    FROM subscribed s
    JOIN events e ON e.id = %(event_id)s
    CROSS JOIN LATERAL {{roles_to_mail}} r
    WHERE NOT EXISTS (SELECT FROM ineligible i WHERE i.member_id = s.member_id)
), known AS MATERIALIZED (
    SELECT d.member_id, d.slot, d.role, d.state,
        -- Queried only where it matters.
        d.state IN ('planned', 'retry', 'skipped') AND EXISTS (
            SELECT FROM batches b JOIN batch_items i ON i.batch_id = b.id
            WHERE b.event_id = d.event_id AND b.action = d.action AND i.member_id = d.member_id
                AND (d.slot = 'member' OR d.role = ANY(i.roles)) AND i.settled_at IS NULL
        ) AS has_work
    FROM deliveries d
    WHERE d.event_id = %(event_id)s AND d.action = 'invite'
), audited AS MATERIALIZED (
    SELECT coalesce(due.member_id, known.member_id) AS member_id, coalesce(due.due_role, known.role) AS role,
        coalesce(due.slot, known.slot) AS slot,
        CASE
            WHEN known.state IN ('sent', 'failed', 'unknown') THEN known.state
            WHEN known.state = 'handing_off' OR (known.has_work AND known.state IN ('planned', 'retry', 'skipped')
                AND due.member_id IS NOT NULL) THEN 'pending'
            WHEN due.member_id IS NOT NULL THEN 'missing'
            WHEN known.state = 'skipped' THEN 'skipped'
            WHEN known.state = 'retry' AND known.has_work THEN 'pending'
        END AS status
    FROM due FULL JOIN known ON known.member_id = due.member_id AND known.slot = due.slot
    WHERE due.member_id IS NOT NULL OR known.role = ANY(%(roles)s)
)

-- name: audit_counts
-- From one read: deliveries by status; how many are eligible, counted in another way, so that an error in the sum shows;
-- and the missing ones.
WITH {{audited}}
SELECT (
    SELECT coalesce(jsonb_object_agg(status, deliveries), '{}')
    FROM (SELECT status, count(*) AS deliveries FROM audited WHERE status IS NOT NULL GROUP BY status) c
) AS counts, (SELECT count(*) FROM due) + (
    SELECT count(*) FROM known
    WHERE role = ANY(%(roles)s)
        AND (state IN ('sent', 'failed', 'unknown', 'skipped', 'handing_off') OR (state = 'retry' AND has_work))
        AND NOT EXISTS (SELECT FROM due WHERE due.member_id = known.member_id AND due.slot = known.slot)
) AS eligible, (
    SELECT coalesce(jsonb_agg(jsonb_build_object('member_id', member_id, 'role', role) ORDER BY member_id, role), '[]')
    FROM audited WHERE status = 'missing'
) AS missing

-- name: audit_rows
-- The deliveries behind these numbers.
WITH {{audited}}
SELECT now() AS as_of, x.member_id, x.role, x.status, d.reason, d.batch_id,
    CASE WHEN x.status <> 'missing' THEN d.updated_at END AS at
FROM audited x
LEFT JOIN deliveries d ON d.event_id = %(event_id)s AND d.action = 'invite' AND d.member_id = x.member_id AND d.slot = x.slot
WHERE x.status IS NOT NULL
ORDER BY x.member_id, x.role

-- name: audit_contradictions
-- Where a log contradicts the ledger. No statement here can write these.
WITH ledger AS MATERIALIZED (
    SELECT action, member_id, slot, state, batch_id FROM deliveries WHERE event_id = %(event_id)s
)
SELECT kind, count(*) AS deliveries FROM (
    SELECT CASE
        WHEN l.status = 'sent' AND (d.state <> 'sent' OR d.batch_id <> l.batch_id) THEN 'logged as sent, not sent'
        WHEN l.status = 'unknown' AND d.state NOT IN ('unknown', 'handing_off', 'retry') THEN 'logged as unknown, known'
        WHEN l.status = 'skipped' AND l.reason = 'already_sent' AND d.state <> 'sent' THEN 'logged as sent before, not sent'
    END AS kind
    FROM batches b
    JOIN log_entries l ON l.batch_id = b.id
    LEFT JOIN ledger d ON d.action = b.action AND d.member_id = l.member_id AND d.slot = l.slot
    WHERE b.event_id = %(event_id)s
    UNION ALL
    SELECT 'sent by a batch whose log does not say so'
    FROM ledger d JOIN batches b ON b.id = d.batch_id
    JOIN batch_items i ON i.batch_id = b.id AND i.member_id = d.member_id
    LEFT JOIN log_entries l ON l.batch_id = d.batch_id AND l.member_id = d.member_id AND l.slot = d.slot
    WHERE d.state = 'sent' AND l.status IS DISTINCT FROM 'sent'
    UNION ALL
    SELECT 'settled without an entry for each delivery'
    FROM batches b JOIN batch_items i ON i.batch_id = b.id
    LEFT JOIN (
        SELECT l.batch_id, l.member_id, count(*) AS entries
        FROM batches b JOIN log_entries l ON l.batch_id = b.id
        WHERE b.event_id = %(event_id)s AND l.status <> 'retry' GROUP BY l.batch_id, l.member_id
    ) n ON n.batch_id = i.batch_id AND n.member_id = i.member_id
    WHERE b.event_id = %(event_id)s AND i.settled_at IS NOT NULL AND i.excluded IS NULL
        AND cardinality(i.roles) <> coalesce(n.entries, 0)
) found WHERE kind IS NOT NULL GROUP BY kind ORDER BY kind
