-- How bidden reads a database that keeps the lines of a directory file: lines (type text, record jsonb).

-- name: chapter
SELECT r.* FROM lines l CROSS JOIN LATERAL jsonb_to_record(l.record)
    AS r(id bigint, name text, email text, time_zone text) WHERE l.type = 'chapter'

-- name: group
SELECT r.* FROM lines l CROSS JOIN LATERAL jsonb_to_record(l.record)
    AS r(id bigint, chapter_id bigint, name text) WHERE l.type = 'group'

-- name: member
SELECT r.* FROM lines l CROSS JOIN LATERAL jsonb_to_record(l.record)
    AS r(id bigint, name text, surname text, email text, accepted_toc_at timestamptz) WHERE l.type = 'member'

-- name: subscription
SELECT r.* FROM lines l CROSS JOIN LATERAL jsonb_to_record(l.record)
    AS r(member_id bigint, group_id bigint) WHERE l.type = 'subscription'

-- name: ban
SELECT r.* FROM lines l CROSS JOIN LATERAL jsonb_to_record(l.record)
    AS r(id bigint, member_id bigint, expires_at timestamptz, permanent boolean) WHERE l.type = 'ban'

-- name: event
SELECT r.* FROM lines l CROSS JOIN LATERAL jsonb_to_record(l.record)
    AS r(id bigint, kind text, name text, chapter_ids jsonb, starts_at timestamptz, ends_at timestamptz,
        invitable boolean, host jsonb) WHERE l.type = 'event'

-- name: invitation
SELECT r.* FROM lines l CROSS JOIN LATERAL jsonb_to_record(l.record)
    AS r(event_id bigint, member_id bigint, role text, attending boolean, token text) WHERE l.type = 'invitation'

-- name: place
WITH wanted AS (
    SELECT to_jsonb(w) AS record, w.* FROM jsonb_to_recordset(:rows)
        AS w(event_id bigint, member_id bigint, role text, token text)
), made AS (
    INSERT INTO lines (type, record) SELECT 'invitation', w.record - 'record' FROM wanted w
    WHERE NOT EXISTS (SELECT FROM lines l WHERE l.type = 'invitation' AND l.record @> (w.record - 'token'))
    RETURNING record
)
SELECT r.*, true AS ours
FROM (
    SELECT record FROM made
    UNION ALL SELECT l.record FROM lines l JOIN wanted w ON l.record @> (w.record - 'token') WHERE l.type = 'invitation'
) x CROSS JOIN LATERAL jsonb_to_record(x.record) AS r(event_id bigint, member_id bigint, role text, token text)

-- name: report
WITH given AS (
    SELECT 'outcome' AS type, jsonb_build_object('batch_id', b.record->'batch_id') || e.record AS record,
        ARRAY['batch_id', 'member_id', 'role'] AS key
    FROM (SELECT :batch::jsonb AS record) b CROSS JOIN jsonb_array_elements(:entries) AS e(record)
    UNION ALL SELECT 'batch', :batch::jsonb, ARRAY['batch_id']
), gone AS (
    DELETE FROM lines l USING given g WHERE l.type = g.type AND l.record @> (
        SELECT jsonb_object_agg(k, g.record->k) FROM unnest(g.key) AS k
    )
)
INSERT INTO lines (type, record) SELECT type, record FROM given WHERE record ? 'batch_id' RETURNING type

-- name: leave
DELETE FROM lines l USING jsonb_to_recordset(:rows) AS r(member_id bigint, group_id bigint)
WHERE l.type = 'subscription' AND l.record @> to_jsonb(r)
