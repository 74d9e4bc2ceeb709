-- A source that gets the invitations of a batch before their mails go out (`place` in its file). The system that made
-- the row there mails: one that is not ours may be mailed by the organisation's own, and a later snapshot says so.

-- fragment: to_be_placed
-- The invitation v: the source was not asked for it yet. A deleted member needs none: the claim skips them.
((v.placement IS NULL OR v.placement = 'made')
    AND NOT EXISTS (SELECT FROM members m WHERE m.id = v.member_id AND m.deleted_at IS NOT NULL))

-- fragment: open_invitations
-- Of batch b: its open items i, with the invitation v of each role.
batch_items i
CROSS JOIN LATERAL unnest(i.roles) AS r(role)
JOIN invitations v ON v.event_id = b.event_id AND v.member_id = i.member_id AND v.role = r.role

-- fragment: was_mailed
-- Whether a mail with the link of the invitation v may have gone out, or may go out at this moment.
EXISTS (
    SELECT FROM deliveries d
    WHERE d.event_id = v.event_id AND d.member_id = v.member_id AND d.role = v.role
        AND d.state IN ('handing_off', 'sent', 'unknown')
)

-- name: batches_to_place
SELECT id FROM batches WHERE needs_placing AND state = 'running' AND planning IS NULL ORDER BY id

-- name: invitations_to_place
-- The next items of the batch, by member: up to whom, and the invitations of them that the source is to get.
SELECT max(c.member_id) AS upto, coalesce(jsonb_agg(c.wanted) FILTER (WHERE c.wanted IS NOT NULL), '[]') AS wanted,
    bool_or(c.is_unmarked) AS any_unmarked
FROM (
    SELECT i.member_id, CASE WHEN {{to_be_placed}} THEN
        jsonb_build_object('event_id', v.event_id, 'member_id', v.member_id, 'role', v.role, 'token', v.token) END AS wanted,
        {{to_be_placed}} AND v.placement IS NULL AS is_unmarked
    FROM batches b
    JOIN LATERAL (
        SELECT * FROM batch_items
        WHERE batch_id = b.id AND settled_at IS NULL AND member_id > %(after)s ORDER BY member_id LIMIT %(limit)s
    ) i ON true
    CROSS JOIN LATERAL unnest(i.roles) AS r(role)
    LEFT JOIN invitations v ON v.event_id = b.event_id AND v.member_id = i.member_id AND v.role = r.role
    WHERE b.id = %(batch_id)s
) c

-- name: mark_made
-- Invitations that the source is about to get and that its newest snapshot does not name were made here, also those of
-- before it got any: from now on a row with their token is ours. Where an import by hand has made us forget the snapshot,
-- nobody knows.
UPDATE invitations v SET placement = 'made'
FROM jsonb_to_recordset(%(wanted)s) AS w(event_id bigint, member_id bigint, role text)
WHERE v.event_id = w.event_id AND v.member_id = w.member_id AND v.role = w.role AND v.placement IS NULL
    AND EXISTS (SELECT FROM source_lines) AND NOT EXISTS (
        SELECT FROM source_lines s
        WHERE s.type = 'invitation' AND s.first_id = v.event_id AND s.second_id = v.member_id
            AND s.record::jsonb->>'token' = v.token
    )

-- fragment: answers_of_source
-- CTEs: `wanted`, what was asked, by slot; `answer`, what the source has for each: the row in the role that was asked
-- for, else under the role policy `one` the member's row in the other role.
wanted AS MATERIALIZED (
    SELECT w.event_id, w.member_id, w.role, e.role_policy
    FROM jsonb_to_recordset(%(wanted)s) AS w(event_id bigint, member_id bigint, role text)
    JOIN events e ON e.id = w.event_id
), answer AS MATERIALIZED (
    SELECT DISTINCT ON (w.event_id, w.member_id, w.role) w.event_id, w.member_id, w.role, a.role AS has_role, a.token,
        a.ours
    FROM wanted w
    LEFT JOIN jsonb_to_recordset(%(answers)s) AS a(event_id bigint, member_id bigint, role text, token text, ours bool)
        ON a.event_id = w.event_id AND a.member_id = w.member_id AND (a.role = w.role OR w.role_policy = 'one')
    ORDER BY w.event_id, w.member_id, w.role, a.role <> w.role, NOT a.ours
)

-- name: follow_role_of_source
-- The source has the member in the other role, and they are on that list, too: they are invited in that role.
WITH {{answers_of_source}}, other AS MATERIALIZED (
    SELECT a.* FROM answer a
    WHERE a.has_role <> a.role AND EXISTS (
        SELECT FROM event_subscriptions s
        WHERE s.event_id = a.event_id AND s.member_id = a.member_id AND s.role = a.has_role
    ) AND NOT EXISTS (
        SELECT FROM invitations v
        WHERE v.token = a.token AND (v.event_id, v.member_id, v.role) <> (a.event_id, a.member_id, a.has_role)
    )
), followed AS (
    UPDATE batch_items i SET roles = ARRAY[o.has_role]
    FROM other o WHERE i.batch_id = %(batch_id)s AND i.member_id = o.member_id AND i.settled_at IS NULL
    RETURNING i.member_id
)
INSERT INTO invitations AS v (event_id, member_id, role, token, placement)
SELECT o.event_id, o.member_id, o.has_role, o.token, CASE WHEN o.ours THEN 'ours' ELSE 'theirs' END
FROM other o JOIN followed USING (member_id)
ON CONFLICT (event_id, member_id, role) DO UPDATE
SET token = excluded.token, placement = excluded.placement
WHERE v.token = excluded.token OR NOT {{was_mailed}}

-- name: keep_placements
-- What the source has, with its token: links that were mailed go on working, so what was mailed with another one keeps it,
-- and is not in the source. Returns how many are not ours.
WITH {{answers_of_source}}, kept AS (
    UPDATE invitations v SET
        token = CASE WHEN a.has_role = a.role AND NOT t.is_taken THEN a.token ELSE v.token END,
        placement = CASE WHEN a.has_role = a.role AND NOT t.is_taken THEN
            CASE WHEN a.ours THEN 'ours' ELSE 'theirs' END ELSE 'none' END
    FROM answer a
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM invitations o WHERE o.token = a.token AND (o.event_id, o.member_id, o.role)
                <> (a.event_id, a.member_id, a.role)
        ) OR EXISTS (
            SELECT FROM invitations v
            WHERE v.event_id = a.event_id AND v.member_id = a.member_id AND v.role = a.role AND v.token <> a.token
                AND {{was_mailed}}
        ) AS is_taken
    ) t
    WHERE v.event_id = a.event_id AND v.member_id = a.member_id AND v.role = a.role AND {{to_be_placed}}
    RETURNING v.placement
)
SELECT count(*) FILTER (WHERE placement <> 'ours') AS theirs FROM kept

-- name: wait_for_snapshot
UPDATE batches SET placing_asked_at = clock_timestamp() WHERE id = %(batch_id)s AND needs_placing

-- name: open_placed_batches
-- Batches whose invitations the source all has, or does not take. Where it said, of one of the event, for whichever
-- batch, that it is not ours, the newest snapshot began after that. Their items are due.
UPDATE batches b SET needs_placing = false
WHERE b.needs_placing AND b.state = 'running' AND b.planning IS NULL
    AND NOT EXISTS (
        SELECT FROM batches o JOIN directory_source s ON s.began_at <= o.placing_asked_at WHERE o.event_id = b.event_id
    )
    AND NOT EXISTS (
        SELECT FROM {{open_invitations}} WHERE i.batch_id = b.id AND i.settled_at IS NULL AND {{to_be_placed}}
    )
RETURNING b.id

-- name: close_unplaced_batches
-- The source is yet to get an invitation of an open item: one of before it got any, one that a snapshot or an import had us
-- make, or one of a delivery that was planned again. `batches`: of these alone; null: of all.
UPDATE batches b SET needs_placing = true
WHERE b.state <> 'cancelled' AND b.needs_placing IS NOT TRUE AND EXISTS (SELECT FROM directory_source WHERE places)
    AND (%(batches)s::bigint[] IS NULL OR b.id = ANY(%(batches)s::bigint[])) AND EXISTS (
        SELECT FROM {{open_invitations}} WHERE i.batch_id = b.id AND i.settled_at IS NULL AND {{to_be_placed}}
    )

-- name: open_all_batches
-- The source gets no invitations any more.
UPDATE batches SET needs_placing = NULL, placing_asked_at = NULL
WHERE needs_placing OR (needs_placing IS NOT NULL AND EXISTS (
    SELECT FROM batch_items i WHERE i.batch_id = batches.id AND i.settled_at IS NULL
))
