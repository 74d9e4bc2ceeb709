-- Retention: what is removed from tables that grow, in chunks. The rules with their ages are in db/retention.py.
--
-- A statement removes at most `limit` rows that are older than `seconds`, and returns how many; `more`: whether it is to
-- be called again. Rows that another transaction holds are left for the next time (SKIP LOCKED). Each finds its rows by
-- an index, or in a table that has a row for each batch at most.

-- fragment: is_old
< now() - %(seconds)s * interval '1 second'

-- fragment: retention_lock
hashtextextended('bidden: retention', {{schema_seed}})

-- name: lock_retention
-- One process at a time removes a chunk: two would look for the same rows. Held until the transaction ends.
SELECT pg_try_advisory_xact_lock({{retention_lock}}) AS locked

-- name: wait_for_retention
-- The same, for a command.
SELECT pg_advisory_xact_lock({{retention_lock}}) IS NOT NULL AS locked

-- name: limit_retention
-- Nobody waits long for a chunk, and it waits for nobody long. For some thousand rows of millions the planner may take
-- a scan of the whole table: as for workers (ADR 10), plans are forced to probe indexes.
SELECT set_config('lock_timeout', '2s', true), set_config('statement_timeout', '30s', true),
    set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true)

-- name: remove_sessions
WITH gone AS (
    DELETE FROM sessions WHERE token_hash IN (
        SELECT token_hash FROM sessions
        WHERE expires_at {{is_old}} OR seen_at < now() - (%(seconds)s + %(idle_seconds)s) * interval '1 second'
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) AS removed, count(*) >= %(limit)s AS more FROM gone

-- name: remove_sign_in_attempts
WITH gone AS (
    DELETE FROM sign_in_attempts WHERE key IN (
        SELECT key FROM sign_in_attempts WHERE since {{is_old}} ORDER BY since LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) AS removed, count(*) >= %(limit)s AS more FROM gone

-- name: remove_sign_in_requests
WITH gone AS (
    DELETE FROM sign_in_requests WHERE state_hash IN (
        SELECT state_hash FROM sign_in_requests
        WHERE expires_at {{is_old}} ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) AS removed, count(*) >= %(limit)s AS more FROM gone

-- name: remove_password_resets
WITH gone AS (
    DELETE FROM password_resets WHERE token_hash IN (
        SELECT token_hash FROM password_resets
        WHERE expires_at {{is_old}} ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) AS removed, count(*) >= %(limit)s AS more FROM gone

-- name: remove_audit_log
WITH gone AS (
    DELETE FROM audit_log WHERE id IN (
        SELECT id FROM audit_log WHERE at {{is_old}} ORDER BY at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) AS removed, count(*) >= %(limit)s AS more FROM gone

-- name: remove_batch_webhooks
-- Delivered or given up. One that was given up has no time of its own.
WITH gone AS (
    DELETE FROM batch_webhooks WHERE batch_id IN (
        SELECT w.batch_id FROM batch_webhooks w JOIN batches b ON b.id = w.batch_id
        WHERE w.due_at IS NULL AND coalesce(w.delivered_at, b.started_at) {{is_old}}
        LIMIT %(limit)s FOR UPDATE OF w SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) AS removed, count(*) >= %(limit)s AS more FROM gone

-- name: remove_trigger_keys
-- The key of a trigger, not its batch. A request that is repeated after the event ended is refused in any case (FM-31).
WITH gone AS (
    UPDATE batches SET trigger_key = NULL WHERE id IN (
        SELECT b.id FROM batches b JOIN events e ON e.id = b.event_id
        WHERE b.trigger_key IS NOT NULL AND b.started_at {{is_old}} AND e.ends_at {{is_old}}
        LIMIT %(limit)s FOR UPDATE OF b SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) AS removed, count(*) >= %(limit)s AS more FROM gone

-- fragment: has_newer_link
-- Whether the member of the invitation v to the event e has a newer mail in that role, whose links do the same.
EXISTS (
    SELECT FROM invitations w JOIN events f ON f.id = w.event_id
    WHERE w.member_id = v.member_id AND w.role = v.role AND (f.ends_at, f.id) > (e.ends_at, e.id) AND EXISTS (
        SELECT FROM deliveries d
        WHERE d.event_id = w.event_id AND d.action = 'invite' AND d.member_id = w.member_id
            AND d.slot IN (w.role, 'member') AND d.state = 'sent'
    )
)

-- name: remove_invitations
-- Of events that ended long ago: those without an answer (audit and `why` need answers), where the member has newer
-- links or was deleted, so that no link in anybody's newest mail stops working. One pass looks at each invitation
-- once: `place` is where it goes on.
WITH looked_at AS MATERIALIZED (
    SELECT x.* FROM (
        SELECT e.id, e.ends_at FROM events e WHERE e.ends_at {{is_old}} AND e.id >= %(place_event)s ORDER BY e.id
    ) e CROSS JOIN LATERAL (
        SELECT e.id, v.member_id, v.role, e.ends_at, v.attending IS NULL AS is_unanswered FROM invitations v
        WHERE v.event_id = e.id AND (v.event_id, v.member_id, v.role)
            > (%(place_event)s, %(place_member)s, %(place_role)s)
        ORDER BY v.member_id, v.role LIMIT %(limit)s
    ) x
    ORDER BY e.id, x.member_id, x.role LIMIT %(limit)s
), gone AS (
    DELETE FROM invitations v USING looked_at e
    WHERE e.is_unanswered AND (v.event_id, v.member_id, v.role) = (e.id, e.member_id, e.role) AND v.attending IS NULL
        AND (
            -- OFFSET 0: by the key, for one member after the other.
            EXISTS (SELECT FROM members m WHERE m.id = v.member_id AND m.deleted_at IS NOT NULL OFFSET 0)
            OR {{has_newer_link}}
        )
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone) AS removed, count(*) >= %(limit)s AS more,
    (array_agg(jsonb_build_array(id, member_id, role) ORDER BY id DESC, member_id DESC, role DESC))[1] AS place
FROM looked_at

-- fragment: has_ended
-- Of the batch b: no decision is left to apply, nothing is unsettled, and nothing was written for `seconds`.
(b.archived IS NULL AND b.planning IS NULL AND b.unapplied_since IS NULL AND b.started_at {{is_old}}
    AND NOT EXISTS (SELECT FROM batch_items u WHERE u.batch_id = b.id AND u.settled_at IS NULL)
    AND greatest(
        b.cancelled_at,
        (SELECT max(u.settled_at) FROM batch_items u WHERE u.batch_id = b.id),
        (SELECT max(u.at) FROM log_entries u WHERE u.batch_id = b.id),
        b.started_at
    ) {{is_old}})

-- name: find_batch_to_archive
SELECT b.id, -1 AS removed_up_to FROM batches b WHERE {{has_ended}} ORDER BY b.started_at LIMIT 1 FOR UPDATE OF b SKIP LOCKED

-- name: archive_batch
-- The counts outlive their rows: they are stored before the first of those is removed. `removed_up_to`: rows are left,
-- those of members with a higher id. Actions open no row of an archived batch again.
UPDATE batches b SET archived = jsonb_build_object(
    'planned', i.planned, 'deliveries', i.deliveries, 'last_settled_at', i.last_settled_at,
    'sent', l.sent, 'failed', l.failed - f.reached_before, 'unknown', l.unknown,
    'skipped', l.skipped + f.reached_before, 'wrong', l.failed - f.reached_elsewhere + l.unknown,
    'excluded', x.excluded, 'removed_at', now(), 'removed_up_to', -1
)
FROM (
    SELECT count(*) FILTER (WHERE excluded IS NULL) AS planned,
        coalesce(sum(cardinality(roles)), 0)::bigint AS deliveries, max(settled_at) AS last_settled_at
    FROM batch_items WHERE batch_id = %(batch_id)s
) i, (
    SELECT count(*) FILTER (WHERE status = 'sent') AS sent, count(*) FILTER (WHERE status = 'failed') AS failed,
        count(*) FILTER (WHERE status = 'unknown') AS unknown, count(*) FILTER (WHERE status = 'skipped') AS skipped
    FROM log_entries WHERE batch_id = %(batch_id)s
) l, (
    SELECT coalesce(jsonb_object_agg(excluded, members), '{}') AS excluded FROM (
        SELECT excluded, count(*) AS members FROM batch_items
        WHERE batch_id = %(batch_id)s AND excluded IS NOT NULL GROUP BY excluded
    ) counted
) x, (
    SELECT f.* FROM batches b {{with_reached_elsewhere}} WHERE b.id = %(batch_id)s
) f
WHERE b.id = %(batch_id)s

-- name: find_archived_batch_with_rows
SELECT b.id, (b.archived ->> 'removed_up_to')::bigint AS removed_up_to FROM batches b
WHERE b.archived ? 'removed_up_to' ORDER BY b.id LIMIT 1 FOR UPDATE OF b SKIP LOCKED

-- name: remove_batch_rows
-- The items of some members together with their log entries: at each commit items and log agree.
WITH chunk AS MATERIALIZED (
    SELECT member_id FROM batch_items
    WHERE batch_id = %(batch_id)s AND member_id > %(removed_up_to)s ORDER BY member_id LIMIT %(limit)s
), entries AS (
    DELETE FROM log_entries
    WHERE batch_id = %(batch_id)s AND member_id > %(removed_up_to)s AND member_id <= (SELECT max(member_id) FROM chunk)
    RETURNING 1
), items AS (
    DELETE FROM batch_items
    WHERE batch_id = %(batch_id)s AND member_id > %(removed_up_to)s AND member_id <= (SELECT max(member_id) FROM chunk)
    RETURNING 1
), moved AS (
    UPDATE batches SET archived = jsonb_set(archived, '{removed_up_to}', to_jsonb((SELECT max(member_id) FROM chunk)))
    WHERE id = %(batch_id)s AND EXISTS (SELECT FROM chunk)
)
SELECT (SELECT count(*) FROM entries) + (SELECT count(*) FROM items) AS removed, (SELECT count(*) FROM chunk) AS members

-- name: remove_last_batch_rows
-- Entries without an item, which only a person's hand can have written; then nothing is left.
WITH entries AS (
    DELETE FROM log_entries WHERE batch_id = %(batch_id)s RETURNING 1
), ended AS (
    UPDATE batches SET archived = archived - 'removed_up_to' WHERE id = %(batch_id)s
)
SELECT count(*) AS removed FROM entries
