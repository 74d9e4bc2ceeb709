-- Planning: one statement decides about every candidate, and one transaction writes what it decided.

-- name: lock_event
-- Keeps an import from changing the event's role policy while it is planned.
SELECT id, kind, name, starts_at <= now() AS is_past, invitable, cancelled_at IS NOT NULL AS is_cancelled,
    host_name IS NOT NULL AS has_host, role_policy
FROM events e WHERE id = %(event_id)s FOR SHARE

-- name: insert_batch
-- The trigger's key is what makes a second click, request or retry return the first batch (FM-31).
INSERT INTO batches (trigger_key, event_id, audience, action, initiator, shuffle_seed, started_at)
VALUES (%(trigger_key)s, %(event_id)s, %(audience)s, %(action)s, %(initiator)s, %(seed)s, now())
ON CONFLICT (trigger_key) DO NOTHING
RETURNING id

-- name: batch_of_trigger
SELECT id, event_id, audience, action FROM batches WHERE trigger_key = %(trigger_key)s

-- name: new_shuffle_seed
SELECT ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 15))::bit(60)::bigint AS seed

-- fragment: candidates
-- Every subscriber of the audience's lists, once (FM-01), judged.
subscribed AS MATERIALIZED (
    SELECT s.member_id, array_agg(DISTINCT s.role) AS roles
    FROM event_subscriptions s
    WHERE s.event_id = %(event_id)s AND s.role = ANY(%(roles)s)
    GROUP BY s.member_id
), {{judged}}

-- fragment: judged
-- Those of the CTE `subscribed` with the roles still open and, if she is left out, the first reason that applies.
-- `held` is whether an unknown delivery stays closed.
slots AS MATERIALIZED (
    SELECT s.member_id,
        array_agg(r.role ORDER BY r.rank)
            FILTER (WHERE d.state IS NULL OR d.state NOT IN ('sent', 'unknown')
                OR (d.state = 'unknown' AND NOT %(held)s)) AS open_roles,
        bool_and(d.state IS NOT DISTINCT FROM 'sent') AS all_sent
    FROM subscribed s
    JOIN events e ON e.id = %(event_id)s
    CROSS JOIN LATERAL (
        SELECT role, rank FROM unnest(%(roles)s::text[]) WITH ORDINALITY AS u(role, rank)
        WHERE role = ANY(s.roles) ORDER BY rank
        LIMIT CASE e.role_policy WHEN 'one' THEN 1 ELSE 2 END
    ) r
    LEFT JOIN deliveries d ON d.event_id = e.id AND d.action = %(action)s AND d.member_id = s.member_id
        AND d.slot = {{slot_of_role}}
    GROUP BY s.member_id
), candidates AS MATERIALIZED (
    SELECT m.id AS member_id, slots.open_roles,
        coalesce({{answer}}, CASE
            WHEN slots.all_sent THEN 'already_sent'
            WHEN m.accepted_toc_at IS NULL THEN 'terms_not_accepted'
            WHEN {{is_banned}} THEN 'banned'
            WHEN slots.open_roles IS NULL THEN 'unknown'
        END) AS excluded
    FROM slots
    JOIN members m ON m.id = slots.member_id AND m.deleted_at IS NULL
    JOIN events e ON e.id = %(event_id)s
)

-- name: preview
-- A dry run: the same decision, written nowhere.
WITH {{candidates}}
SELECT excluded, count(*) AS members,
    coalesce(sum(cardinality(open_roles)) FILTER (WHERE excluded IS NULL), 0)::bigint AS deliveries
FROM candidates GROUP BY excluded

-- name: preview_audiences
-- The same for several audiences at once, from one look at everybody. What is known of a member is a sum of these:
-- on a list as a student 1, as a coach 2; mailed as a student 4, as a coach 8, as a member 16; in doubt as these 32, 64,
-- 128; signed up 256; declined 512; without the terms 1024; banned 2048; deleted 4096. Who is alike in all that is
-- counted together, and the decision is made about each kind of member, of which there are few.
WITH lists AS MATERIALIZED (
    SELECT id, CASE {{role_of_list}} WHEN 'Student' THEN 1 ELSE 2 END AS fact
    FROM event_chapters c JOIN groups g ON g.chapter_id = c.chapter_id WHERE c.event_id = %(event_id)s
), known AS (
    SELECT s.member_id, l.fact FROM lists l JOIN subscriptions s ON s.group_id = l.id AND s.left_at IS NULL
    UNION ALL
    SELECT d.member_id, CASE d.state WHEN 'sent' THEN 4 WHEN 'unknown' THEN 32 ELSE 0 END
        << CASE d.slot WHEN 'Student' THEN 0 WHEN 'Coach' THEN 1 ELSE 2 END
    FROM deliveries d WHERE d.event_id = %(event_id)s AND d.action = %(action)s
    UNION ALL
    SELECT v.member_id, CASE WHEN v.attending THEN 256 ELSE 512 END
    FROM invitations v WHERE v.event_id = %(event_id)s AND v.attending IS NOT NULL
    UNION ALL
    SELECT m.id, CASE WHEN m.deleted_at IS NULL THEN 1024 ELSE 4096 END
    FROM members m WHERE m.accepted_toc_at IS NULL OR m.deleted_at IS NOT NULL
    UNION ALL
    SELECT x.member_id, 2048 FROM bans x WHERE x.permanent OR x.expires_at > now()
), sums AS (
    SELECT facts, count(*) AS members FROM (SELECT bit_or(fact) AS facts FROM known GROUP BY member_id) x GROUP BY facts
), alike AS MATERIALIZED (
    SELECT members, facts & 1 <> 0 AS is_student, facts & 2 <> 0 AS is_coach,
        CASE WHEN facts & 4 <> 0 THEN 'sent' WHEN facts & 32 <> 0 THEN 'unknown' END AS of_student,
        CASE WHEN facts & 8 <> 0 THEN 'sent' WHEN facts & 64 <> 0 THEN 'unknown' END AS of_coach,
        CASE WHEN facts & 16 <> 0 THEN 'sent' WHEN facts & 128 <> 0 THEN 'unknown' END AS of_member,
        CASE WHEN facts & 256 <> 0 THEN 'signed_up' WHEN facts & 512 <> 0 THEN 'declined' END AS answer,
        facts & 1024 <> 0 AS has_no_terms, facts & 2048 <> 0 AS is_barred
    FROM sums WHERE facts & 3 <> 0 AND facts & 4096 = 0
), decided AS (
    SELECT a.audience, k.members, x.open_roles, coalesce(k.answer, CASE
        WHEN x.all_sent THEN 'already_sent'
        WHEN k.has_no_terms THEN 'terms_not_accepted'
        WHEN k.is_barred THEN 'banned'
        WHEN x.open_roles = 0 THEN 'unknown'
    END) AS excluded
    FROM alike k
    CROSS JOIN jsonb_to_recordset(%(audiences)s) AS a(audience text, roles text[])
    JOIN events e ON e.id = %(event_id)s
    CROSS JOIN LATERAL (
        SELECT count(*) AS roles, bool_and(state IS NOT DISTINCT FROM 'sent') AS all_sent,
            count(*) FILTER (WHERE state IS NULL OR (state = 'unknown' AND NOT %(held)s)) AS open_roles
        FROM (
            SELECT CASE WHEN e.role_policy = 'one' THEN k.of_member WHEN u.role = 'Student' THEN k.of_student
                ELSE k.of_coach END AS state
            FROM unnest(a.roles) WITH ORDINALITY AS u(role, rank)
            WHERE CASE u.role WHEN 'Student' THEN k.is_student ELSE k.is_coach END ORDER BY rank
            LIMIT CASE e.role_policy WHEN 'one' THEN 1 ELSE 2 END
        ) r
    ) x
    WHERE x.roles > 0
)
SELECT audience, excluded, sum(members)::bigint AS members,
    coalesce(sum(members * open_roles) FILTER (WHERE excluded IS NULL), 0)::bigint AS deliveries
FROM decided GROUP BY audience, excluded

-- name: plan_items
-- The order of sending is shuffled per batch, and the same for the same seed (FM-34). Items are claimed for the
-- trigger from birth: if it dies before it has published them, they are due for any dispatcher.
WITH {{candidates}}
INSERT INTO batch_items (batch_id, member_id, roles, excluded, position, publish_at, settled_at)
SELECT %(batch_id)s, member_id, CASE WHEN excluded IS NULL THEN open_roles ELSE '{}' END, excluded,
    CASE WHEN excluded IS NULL THEN
        row_number() OVER (PARTITION BY excluded IS NULL ORDER BY md5(%(seed)s::text || ':' || member_id), member_id)
    END,
    CASE WHEN excluded IS NULL THEN now() + %(claim)s * interval '1 second' END,
    CASE WHEN excluded IS NOT NULL THEN now() END
FROM candidates

-- name: reopen_deliveries
-- A key that failed or was skipped is open again for the new batch. SKIP LOCKED: a worker that holds the row is
-- taking it already; waiting for it could deadlock.
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
    batch_id = NULL, updated_at = now()
FROM closed c
WHERE d.event_id = c.event_id AND d.action = c.action AND d.member_id = c.member_id AND d.slot = c.slot

-- name: plan_deliveries
-- The ledger's rows for what was planned, where there are none yet.
INSERT INTO deliveries (event_id, action, member_id, slot, role, updated_at)
SELECT e.id, %(action)s, i.member_id, {{slot_of_role}}, r.role, now()
FROM batch_items i
JOIN events e ON e.id = %(event_id)s
CROSS JOIN LATERAL unnest(i.roles) AS r(role)
WHERE i.batch_id = %(batch_id)s
ORDER BY i.member_id
ON CONFLICT (event_id, action, member_id, slot) DO NOTHING

-- name: plan_invitations
INSERT INTO invitations (event_id, member_id, role, token)
SELECT %(event_id)s, i.member_id, r.role, {{new_token}}
FROM batch_items i CROSS JOIN LATERAL unnest(i.roles) AS r(role)
WHERE i.batch_id = %(batch_id)s
ORDER BY i.member_id
ON CONFLICT (event_id, member_id, role) DO NOTHING

-- name: plan_counts
SELECT excluded, count(*) AS members, sum(cardinality(roles))::bigint AS deliveries
FROM batch_items WHERE batch_id = %(batch_id)s GROUP BY excluded
UNION ALL
SELECT NULL, (archived ->> 'planned')::bigint, (archived ->> 'deliveries')::bigint
FROM batches WHERE id = %(batch_id)s AND archived IS NOT NULL
UNION ALL
SELECT x.key, x.value::bigint, 0
FROM batches b CROSS JOIN LATERAL jsonb_each_text(b.archived -> 'excluded') x
WHERE b.id = %(batch_id)s

-- name: batch_state
SELECT {{state_of_batch}} AS state FROM batches b WHERE b.id = %(batch_id)s
