-- Complete snapshots of a source. The lines are in temporary tables: `snapshot_lines` as the source wrote them,
-- `import_rows` those that can be used (db.snapshot_staging), `set_aside` those that cannot, `gone` what a line may no
-- longer refer to, as `type/id`.

-- fragment: fresh_until
-- Of the source s. No claim is taken, and no mail begun, later by what its newest snapshot says; NULL: whenever.
s.began_at + s.max_age_seconds * interval '1 second'

-- fragment: source_is_stale
EXISTS (SELECT FROM directory_source s WHERE {{fresh_until}} <= clock_timestamp())

-- name: lock_source
-- The newest snapshot, and whether there is one. Snapshots and imports take turns (lock_imports).
SELECT began_at, max_age_seconds, result FROM directory_source

-- name: clock
SELECT clock_timestamp() AS now

-- name: stage_known_lines
-- Lines that the last snapshot had are not read again.
INSERT INTO import_rows (type, first_id, second_id, role, line, deleted, unique_value, record, refs, digest, changed)
SELECT s.type, s.first_id, s.second_id, s.role, l.line, s.deleted, s.unique_value, s.record, s.refs, s.digest, false
FROM (SELECT digest, max(line) AS line FROM snapshot_lines GROUP BY digest) l JOIN source_lines s USING (digest)

-- name: unknown_lines
SELECT DISTINCT ON (l.digest) l.line, l.raw, l.digest FROM snapshot_lines l
WHERE NOT EXISTS (SELECT FROM source_lines s WHERE s.digest = l.digest)
ORDER BY l.digest, l.line DESC

-- name: keep_last_lines
-- Of several lines for one record the last counts.
DELETE FROM import_rows r USING (
    SELECT ctid AS place, row_number() OVER (PARTITION BY type, first_id, second_id, role ORDER BY line DESC) AS n
    FROM import_rows
) x WHERE r.ctid = x.place AND x.n > 1

-- name: take_from_staged
-- What these lines said cannot be used.
DELETE FROM import_rows r USING unnest(%(lines)s::integer[]) AS wrong(line) WHERE r.line = wrong.line
RETURNING r.line, r.type, r.first_id, r.second_id, r.role, r.record::jsonb->>'member_id' AS member_id

-- name: take_members
-- Members whose bans cannot be read.
DELETE FROM import_rows r USING unnest(%(ids)s::bigint[]) AS wrong(id)
WHERE r.type = 'member' AND r.first_id = wrong.id AND NOT r.deleted
RETURNING r.first_id AS id

-- name: set_aside_referring
-- The lines of a type that refer to what is gone.
WITH taken AS (
    DELETE FROM import_rows r USING (
        SELECT x.ctid AS place, min(g.ref) AS ref FROM import_rows x
        CROSS JOIN LATERAL unnest(x.refs) AS named(ref) JOIN gone g USING (ref)
        WHERE x.type = %(type)s AND NOT x.deleted
        GROUP BY x.ctid
    ) f WHERE r.ctid = f.place
    RETURNING r.type, r.first_id, r.second_id, r.role, r.refs, f.ref
)
INSERT INTO set_aside (type, key, first_id, second_id, field, problem, member_id, event_id)
SELECT t.type, concat_ws('/', t.first_id, t.second_id, t.role), t.first_id, t.second_id, split_part(t.ref, '/', 1) || '_id',
    format('%%s %%s was set aside, or is not in the source', split_part(t.ref, '/', 1), split_part(t.ref, '/', 2)),
    (SELECT substr(n.ref, 8)::bigint FROM unnest(t.refs) AS n(ref) WHERE n.ref LIKE 'member/%%'),
    CASE t.type WHEN 'event' THEN t.first_id WHEN 'invitation' THEN t.first_id END
FROM taken t

-- name: note_gone
-- What was set aside or is removed of this type.
INSERT INTO gone (ref)
SELECT %(type)s || '/' || s.first_id FROM set_aside s WHERE s.type = %(type)s AND s.first_id IS NOT NULL
UNION SELECT %(type)s || '/' || r.first_id FROM import_rows r WHERE r.type = %(type)s AND r.deleted

-- name: emails_of_others
-- Lines with the address of a member who keeps it: one whose own line was set aside.
SELECT r.line, 'email' AS field, format('email is already the address of member %%s', o.id) AS problem
FROM import_rows r JOIN members o ON o.email = r.unique_value AND o.id <> r.first_id
WHERE r.type = 'member' AND NOT r.deleted
    AND NOT EXISTS (SELECT FROM import_rows x WHERE x.type = 'member' AND x.first_id = o.id)

-- name: refs_of_others
SELECT r.line, 'ref' AS field, format('ref is already that of event %%s', o.id) AS problem
FROM import_rows r JOIN events o ON o.ref = r.unique_value AND o.id <> r.first_id
WHERE r.type = 'event' AND NOT EXISTS (SELECT FROM import_rows x WHERE x.type = 'event' AND x.first_id = o.id)

-- name: remove_missing_group
INSERT INTO import_rows (type, first_id, line, deleted, record, refs, changed)
SELECT 'group', g.id, 0, true, json_build_object('line', 0, 'id', g.id), '{}', true FROM groups g
WHERE NOT EXISTS (SELECT FROM import_rows r WHERE r.type = 'group' AND r.first_id = g.id)
    AND NOT EXISTS (SELECT FROM set_aside s WHERE s.type = 'group' AND s.first_id = g.id)

-- name: remove_missing_member
INSERT INTO import_rows (type, first_id, line, deleted, record, refs, changed)
SELECT 'member', m.id, 0, true, json_build_object('line', 0, 'id', m.id), '{}', true FROM members m
WHERE m.deleted_at IS NULL AND NOT EXISTS (SELECT FROM import_rows r WHERE r.type = 'member' AND r.first_id = m.id)
    AND NOT EXISTS (SELECT FROM set_aside s WHERE s.type = 'member' AND s.first_id = m.id)

-- name: remove_missing_subscription
-- Also those that were set aside: nobody is mailed for a line that cannot be used.
INSERT INTO import_rows (type, first_id, second_id, line, deleted, record, refs, changed)
SELECT 'subscription', s.member_id, s.group_id, 0, true,
    json_build_object('line', 0, 'member_id', s.member_id, 'group_id', s.group_id), '{}', true
FROM subscriptions s
WHERE NOT EXISTS (
    SELECT FROM import_rows r WHERE r.type = 'subscription' AND r.first_id = s.member_id AND r.second_id = s.group_id
)

-- name: remove_missing_ban
-- Not those that were set aside: who is banned stays so until the line can be read.
INSERT INTO import_rows (type, first_id, line, deleted, record, refs, changed)
SELECT 'ban', b.id, 0, true, json_build_object('line', 0, 'id', b.id), '{}', true FROM bans b
WHERE NOT EXISTS (SELECT FROM import_rows r WHERE r.type = 'ban' AND r.first_id = b.id)
    AND NOT EXISTS (SELECT FROM set_aside s WHERE s.type = 'ban' AND s.first_id = b.id)

-- fragment: counted
-- Over the changed rows r, with the live record x of each: how many are new, how many lose theirs.
count(*) FILTER (WHERE NOT r.deleted AND x.id IS NULL) AS added,
count(*) FILTER (WHERE r.deleted AND x.id IS NOT NULL) AS removed

-- fragment: changed_rows
(SELECT * FROM import_rows WHERE type = %(type)s AND changed) r

-- name: count_chapter
SELECT (SELECT count(*) FROM chapters) AS before, {{counted}}
FROM {{changed_rows}} LEFT JOIN chapters x ON x.id = r.first_id

-- name: count_group
SELECT (SELECT count(*) FROM groups) AS before, {{counted}}
FROM {{changed_rows}} LEFT JOIN groups x ON x.id = r.first_id

-- name: count_member
SELECT (SELECT count(*) FROM members WHERE deleted_at IS NULL) AS before, {{counted}}
FROM {{changed_rows}} LEFT JOIN members x ON x.id = r.first_id AND x.deleted_at IS NULL

-- name: count_subscription
SELECT (SELECT count(*) FROM subscriptions) AS before, {{counted}}
FROM {{changed_rows}} LEFT JOIN (SELECT s.member_id AS id, s.group_id FROM subscriptions s) x
    ON x.id = r.first_id AND x.group_id = r.second_id

-- name: count_ban
SELECT (SELECT count(*) FROM bans) AS before, {{counted}}
FROM {{changed_rows}} LEFT JOIN bans x ON x.id = r.first_id

-- name: count_event
-- Those that have not ended, and were in the last snapshot: others come and go.
SELECT (
    SELECT count(*) FROM source_lines s JOIN events e ON e.id = s.first_id
    WHERE s.type = 'event' AND e.ends_at > now()
) AS before, {{counted}}
FROM {{changed_rows}} LEFT JOIN events x ON x.id = r.first_id

-- name: count_invitation
SELECT (
    SELECT count(*) FROM source_lines s JOIN events e ON e.id = s.first_id
    WHERE s.type = 'invitation' AND e.ends_at > now()
) AS before, {{counted}}
FROM {{changed_rows}} LEFT JOIN (SELECT i.event_id AS id, i.member_id, i.role FROM invitations i) x
    ON x.id = r.first_id AND x.member_id = r.second_id AND x.role = r.role

-- name: sent_in_the_future
-- By more than clocks differ: no zone is nearer to another than a quarter of an hour.
SELECT count(*) AS n, max((r.record::jsonb->>'sent_at')::timestamptz) AS latest FROM import_rows r
WHERE r.type = 'invitation' AND r.changed AND (r.record::jsonb->>'sent_at')::timestamptz > clock_timestamp() + interval '5 minutes'

-- name: keep_source_lines
-- Lines that were used, and nothing else.
WITH no_longer AS (
    DELETE FROM source_lines s
    WHERE NOT EXISTS (SELECT FROM import_rows r WHERE r.digest = s.digest AND NOT r.changed)
)
INSERT INTO source_lines (digest, type, first_id, second_id, role, deleted, unique_value, record, refs)
SELECT digest, type, first_id, second_id, role, deleted, unique_value, record, refs FROM import_rows
WHERE changed AND digest IS NOT NULL
ON CONFLICT (digest) DO NOTHING

-- name: keep_set_aside
-- Only what differs is written: the same few lines are set aside at every snapshot.
WITH no_longer AS (
    DELETE FROM set_aside_lines k WHERE NOT EXISTS (
        SELECT FROM set_aside s
        WHERE (s.type, s.key, s.problem) = (k.type, k.key, k.problem) AND s.field IS NOT DISTINCT FROM k.field
    )
)
INSERT INTO set_aside_lines (type, key, field, problem, member_id, event_id)
SELECT DISTINCT ON (s.type, s.key, s.field, s.problem) s.type, s.key, s.field, s.problem, s.member_id, s.event_id
FROM set_aside s
WHERE NOT EXISTS (
    SELECT FROM set_aside_lines k
    WHERE (s.type, s.key, s.problem) = (k.type, k.key, k.problem) AND s.field IS NOT DISTINCT FROM k.field
)
ORDER BY s.type, s.key, s.field, s.problem

-- name: keep_snapshot
INSERT INTO directory_source (id, began_at, applied_at, max_age_seconds, places, result)
VALUES (1, %(began_at)s, clock_timestamp(), %(max_age)s, %(places)s, %(result)s)
ON CONFLICT (id) DO UPDATE SET began_at = excluded.began_at, applied_at = excluded.applied_at,
    max_age_seconds = excluded.max_age_seconds, places = excluded.places, result = excluded.result, problem = NULL, problem_since = NULL

-- name: note_source_problem
-- A snapshot was not taken. The first one has no row to say it in.
UPDATE directory_source SET problem = %(problem)s, problem_since = coalesce(problem_since, now())

-- name: departures_to_write
-- The next departures that were not written back: of each the lists of the member that it is about, as the directory has
-- them.
SELECT o.id, coalesce(
    jsonb_agg(jsonb_build_object('member_id', s.member_id, 'group_id', g.id) ORDER BY g.id) FILTER (WHERE g.id IS NOT NULL),
    '[]') AS lists
FROM (SELECT * FROM opt_outs WHERE written_back_at IS NULL AND id > %(after)s ORDER BY id LIMIT %(limit)s) o
LEFT JOIN subscriptions s ON s.member_id = o.member_id
LEFT JOIN groups g ON g.id = s.group_id
    AND (o.chapter_id IS NULL OR (g.chapter_id = o.chapter_id AND {{role_of_list}} = o.role))
GROUP BY o.id ORDER BY o.id

-- name: note_departures
UPDATE opt_outs SET written_back_at = now() WHERE id = ANY(%(ids)s::bigint[])

-- name: forget_source_lines
-- An import by hand has changed what they say.
DELETE FROM source_lines

-- name: end_source
WITH lines AS (DELETE FROM source_lines), aside AS (DELETE FROM set_aside_lines)
DELETE FROM directory_source

-- name: source_status
SELECT s.began_at, s.applied_at, s.max_age_seconds, s.result, s.problem, s.problem_since,
    extract(epoch FROM clock_timestamp() - s.began_at)::float8 AS age_seconds,
    coalesce({{fresh_until}} <= clock_timestamp(), false) AS is_stale,
    (SELECT count(*) FROM set_aside_lines) AS set_aside, s.places, p.batches AS batches_to_place,
    extract(epoch FROM clock_timestamp() - p.oldest)::float8 AS placing_seconds
FROM directory_source s
CROSS JOIN (
    SELECT count(*) AS batches, min(started_at) AS oldest FROM batches WHERE needs_placing AND state = 'running'
) p

-- name: set_aside_lines
SELECT type, key, field, problem, member_id, event_id FROM set_aside_lines
ORDER BY type, length(key), key, id LIMIT %(limit)s

-- name: set_aside_of_member
SELECT type, key, field, problem FROM set_aside_lines WHERE member_id = %(member_id)s ORDER BY id LIMIT %(limit)s

-- name: set_aside_of_event
SELECT type, key, field, problem FROM set_aside_lines WHERE event_id = %(event_id)s ORDER BY id LIMIT %(limit)s

-- name: members_set_aside
SELECT count(DISTINCT member_id) AS n FROM set_aside_lines WHERE type = 'member'
