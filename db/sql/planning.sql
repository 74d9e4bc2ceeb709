-- Planning: one statement decides on every candidate, and one transaction writes the decision.

-- name: lock_event
-- The lock keeps an import from changing the event's role policy while it is planned.
SELECT id, kind, name, starts_at <= now() AS is_past, invitable, cancelled_at IS NOT NULL AS is_cancelled,
    host_name IS NOT NULL AS has_host, role_policy, audience
FROM events e WHERE id = %(event_id)s FOR SHARE

-- name: insert_batch
-- The trigger's key is what makes a second click, request or retry return the first batch (FM-31).
INSERT INTO batches (trigger_key, event_id, audience, action, initiator, shuffle_seed, started_at, planning,
    traceparent, needs_placing)
VALUES (%(trigger_key)s, %(event_id)s, %(audience)s, %(action)s, %(initiator)s, %(seed)s, now(), %(planning)s,
    %(traceparent)s, (SELECT true FROM directory_source WHERE places))
ON CONFLICT (trigger_key) DO NOTHING
RETURNING id

-- name: batch_of_trigger
SELECT id, event_id, audience, action, planning IS NOT NULL AS is_planning FROM batches
WHERE trigger_key = %(trigger_key)s

-- name: count_subscribers
-- Counts no further than `limit`, so that this costs the same however large the lists are.
WITH {{lists}}
SELECT count(*) AS n FROM (
    SELECT FROM lists l JOIN subscriptions s ON s.group_id = l.id AND {{is_on_list}} LIMIT %(limit)s
) counted

-- name: batches_to_plan
SELECT id FROM batches WHERE planning IS NOT NULL ORDER BY id

-- name: claim_planning
-- One process plans a batch at a time. No row lock: a decision about the batch must not wait for its planning.
SELECT pg_try_advisory_xact_lock(hashtextextended('bidden: plan batch ' || %(batch_id)s::bigint, {{schema_seed}})) AS is_claimed

-- name: batch_to_plan
SELECT id, event_id, audience, initiator, trigger_key, shuffle_seed, (planning ->> 'hold_unknown')::bool AS hold_unknown,
    {{trace_of_batch}} AS traceparent
FROM batches b WHERE id = %(batch_id)s AND planning IS NOT NULL

-- name: finish_planning
-- No row: the batch was cancelled meanwhile, and its plan must not be committed.
UPDATE batches SET planning = NULL WHERE id = %(batch_id)s AND planning IS NOT NULL RETURNING id

-- name: refuse_planning
-- What the trigger would have been refused for now: the batch ends without an item, with the reason.
UPDATE batches SET planning = NULL, state = 'cancelled', cancelled_at = now(), first_error = %(reason)s
WHERE id = %(batch_id)s AND planning IS NOT NULL

-- name: tables_to_analyse
-- Tables of which these new rows are more than a tenth, together with what has changed since they were analysed.
SELECT c.relname::text AS name
FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE c.oid IN ('batch_items'::regclass, 'deliveries'::regclass, 'invitations'::regclass)
    AND (c.reltuples < 0 OR coalesce(s.n_mod_since_analyze, 0) + %(rows)s > 0.1 * c.reltuples)
ORDER BY c.relname

-- name: new_shuffle_seed
SELECT ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 15))::bit(60)::bigint AS seed

-- fragment: candidates
-- From the CTEs `subscribed` (member_id, roles) and `ineligible` (member_id, ordinal): every candidate with the roles
-- still open and, if excluded, the reason.
slots AS MATERIALIZED (
    SELECT d.member_id, array_agg(d.role ORDER BY d.rank) FILTER (WHERE d.ordinal IS NULL) AS open_roles,
        {{ordinal_of_slots}} AS ordinal_of_slots
    FROM (
        SELECT s.member_id, r.role, r.rank, {{slot_ordinal}} AS ordinal
        FROM subscribed s
        JOIN events e ON e.id = %(event_id)s
        CROSS JOIN LATERAL {{roles_to_mail}} r
        LEFT JOIN deliveries d ON d.event_id = e.id AND d.action = %(action)s AND d.member_id = s.member_id
            AND d.slot = {{slot_of_role}}
    ) d
    GROUP BY d.member_id
), candidates AS MATERIALIZED (
    SELECT * FROM (
        SELECT c.member_id, c.open_roles, {{ineligibility_reason_at_planning}} AS excluded
        FROM (SELECT s.*, i.ordinal FROM slots s LEFT JOIN ineligible i USING (member_id)) c
    ) c WHERE {{is_candidate}}
)

-- name: dry_run
-- The decision of planning for each of several audiences, written nowhere. It reads all members once: those of whom
-- the same is known are counted together, and the decision is made for each kind of member, of which there are few.
-- `facts` has bits for: on a list as a student 0, as a coach 1; the ordinal of their slot as a student 2 to 6, as a
-- coach 7 to 11, as a member 12 to 16; and 17 and up for each ordinal of their own.
WITH list_facts AS MATERIALIZED (
    SELECT r.id, r.chapter_id, r.role, CASE r.role WHEN 'Student' THEN 1 ELSE 2 END::bigint AS facts
    FROM events e
    JOIN event_chapters c ON c.event_id = e.id
    JOIN (SELECT id, chapter_id, {{role_of_list}} AS role FROM groups) r ON r.chapter_id = c.chapter_id
    WHERE e.id = %(event_id)s AND {{is_in_audience}}
), known AS (
    SELECT s.member_id, l.facts FROM list_facts l JOIN subscriptions s ON s.group_id = l.id AND {{is_on_list}}
    UNION ALL
    SELECT d.member_id, coalesce({{slot_ordinal}}, 0)::bigint
        << CASE d.slot WHEN 'Student' THEN 2 WHEN 'Coach' THEN 7 ELSE 12 END
    FROM deliveries d WHERE d.event_id = %(event_id)s AND d.action = %(action)s
    UNION ALL
    SELECT i.member_id, 1::bigint << (17 + i.ordinal)
    FROM events e CROSS JOIN LATERAL ({{ineligibility}}) i WHERE e.id = %(event_id)s
), kinds AS MATERIALIZED (
    SELECT count(*) AS members, facts & 1 <> 0 AS is_student, facts & 2 <> 0 AS is_coach,
        nullif(facts >> 2 & 31, 0)::int AS as_student, nullif(facts >> 7 & 31, 0)::int AS as_coach,
        nullif(facts >> 12 & 31, 0)::int AS as_member,
        (SELECT min(o) FROM generate_series(1, 31) o WHERE facts >> (17 + o) & 1 <> 0) AS ordinal
    FROM (SELECT bit_or(facts) AS facts FROM known GROUP BY member_id) x
    WHERE facts & 3 <> 0 GROUP BY facts
), decided AS (
    SELECT c.audience, c.members, c.open_slots, {{ineligibility_reason_at_planning}} AS excluded
    FROM (
        SELECT a.audience, k.members, k.ordinal, s.*
        FROM kinds k
        CROSS JOIN jsonb_to_recordset(%(audiences)s) AS a(audience text, roles text[])
        JOIN events e ON e.id = %(event_id)s
        CROSS JOIN LATERAL (
            SELECT count(*) AS slots, count(*) FILTER (WHERE d.ordinal IS NULL) AS open_slots,
                {{ordinal_of_slots}} AS ordinal_of_slots
            FROM (
                SELECT CASE WHEN e.role_policy = 'one' THEN k.as_member WHEN u.role = 'Student' THEN k.as_student
                    ELSE k.as_coach END AS ordinal
                FROM unnest(a.roles) WITH ORDINALITY AS u(role, rank)
                WHERE CASE u.role WHEN 'Student' THEN k.is_student ELSE k.is_coach END ORDER BY rank
                LIMIT CASE e.role_policy WHEN 'one' THEN 1 ELSE 2 END
            ) d
        ) s
        WHERE s.slots > 0
    ) c
)
SELECT audience, excluded, sum(members)::bigint AS members,
    coalesce(sum(members * open_slots) FILTER (WHERE excluded IS NULL), 0)::bigint AS deliveries
FROM decided c WHERE {{is_candidate}} GROUP BY audience, excluded

-- name: plan_items
-- The order of sending is shuffled per batch, and the same for the same seed (FM-34). In a large batch neighbourhoods of
-- ids are shuffled, and the members of each (`schemas.keys`). The first items are inserted with the trigger's publish
-- claim: if it dies before it has published them, they become due for any dispatcher, as the rest is at once; and all is,
-- where the source gets the invitations first.
WITH {{subscribed}}, ineligible AS MATERIALIZED (
    {{ineligible_members}}
), {{candidates}}
INSERT INTO batch_items (batch_id, member_id, roles, excluded, position, publish_at, settled_at)
SELECT %(batch_id)s, member_id, CASE WHEN excluded IS NULL THEN open_roles ELSE '{}' END, excluded,
    CASE WHEN excluded IS NULL THEN place END,
    CASE WHEN excluded IS NULL
        THEN now() + CASE WHEN place <= %(first_items)s AND NOT (SELECT needs_placing IS TRUE FROM batches WHERE id = %(batch_id)s)
            THEN %(claim)s ELSE 0 END * interval '1 second' END,
    CASE WHEN excluded IS NOT NULL THEN now() END
FROM (
    SELECT *, row_number() OVER (
        PARTITION BY excluded IS NULL
        ORDER BY
            CASE WHEN (SELECT count(*) FROM candidates) > %(large)s
                THEN md5(%(seed)s::text || '/' || member_id / %(neighbourhood)s) END,
            md5(%(seed)s::text || ':' || member_id), member_id
    ) AS place
    FROM candidates
) c

-- name: reopen_deliveries
-- A delivery that failed or was skipped is open again for the new batch. SKIP LOCKED: a worker that holds the row is
-- claiming it already; waiting for it could deadlock.
WITH closed AS MATERIALIZED (
    SELECT d.event_id, d.action, d.member_id, d.slot
    FROM batch_items i
    JOIN events e ON e.id = %(event_id)s
    CROSS JOIN LATERAL unnest(i.roles) AS r(role)
    JOIN deliveries d ON d.event_id = e.id AND d.action = %(action)s AND d.member_id = i.member_id
        AND d.slot = {{slot_of_role}}
    WHERE i.batch_id = %(batch_id)s AND d.state IN ('failed', 'skipped')
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE deliveries d SET state = 'planned', attempts = 0, reason = NULL, reply = NULL, not_before = NULL,
    first_refused_at = NULL,
    batch_id = NULL, updated_at = now()
FROM closed c
WHERE d.event_id = c.event_id AND d.action = c.action AND d.member_id = c.member_id AND d.slot = c.slot

-- name: plan_deliveries
-- The ledger's rows of the planned slots, where there are none yet.
INSERT INTO deliveries (event_id, action, member_id, slot, role, updated_at)
SELECT e.id, %(action)s, i.member_id, {{slot_of_role}}, r.role, now()
FROM batch_items i
JOIN events e ON e.id = %(event_id)s
CROSS JOIN LATERAL unnest(i.roles) AS r(role)
WHERE i.batch_id = %(batch_id)s
ORDER BY i.member_id
ON CONFLICT (event_id, action, member_id, slot) DO NOTHING

-- name: plan_invitations
INSERT INTO invitations (event_id, member_id, role, token, placement)
SELECT %(event_id)s, i.member_id, r.role, {{new_token}}, CASE WHEN b.needs_placing THEN 'made' END
FROM batches b
JOIN batch_items i ON i.batch_id = b.id
CROSS JOIN LATERAL unnest(i.roles) AS r(role)
WHERE b.id = %(batch_id)s
ORDER BY i.member_id
ON CONFLICT (event_id, member_id, role) DO NOTHING

-- name: plan_to_place_again
-- What the source did not take for a former batch, it is asked to take again.
UPDATE invitations v SET placement = 'made'
FROM batches b JOIN batch_items i ON i.batch_id = b.id
WHERE b.id = %(batch_id)s AND b.needs_placing AND v.event_id = b.event_id AND v.member_id = i.member_id
    AND v.role = ANY(i.roles) AND v.placement = 'none'

-- name: plan_counts
SELECT i.excluded, count(*) AS members, sum(cardinality(i.roles))::bigint AS deliveries
FROM batch_items i JOIN batches b ON b.id = i.batch_id AND b.archived IS NULL
WHERE i.batch_id = %(batch_id)s GROUP BY i.excluded
UNION ALL
SELECT NULL, (archived ->> 'planned')::bigint, (archived ->> 'deliveries')::bigint
FROM batches WHERE id = %(batch_id)s AND archived IS NOT NULL
UNION ALL
SELECT x.key, x.value::bigint, 0
FROM batches b CROSS JOIN LATERAL jsonb_each_text(b.archived -> 'excluded') x
WHERE b.id = %(batch_id)s

-- name: batch_state
SELECT {{state_of_batch}} AS state FROM batches b WHERE b.id = %(batch_id)s
