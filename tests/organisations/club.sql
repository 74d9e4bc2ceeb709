-- How bidden reads the club: see club_shape.sql.

-- name: event
SELECT g.no AS id, 'event' AS kind, g.title AS name, ARRAY[1::bigint] AS chapter_ids,
    g.first_day AS starts_at, g.first_day + interval '2 hours' AS ends_at, true AS invitable,
    json_build_object('name', 'Club house', 'address', g.place) AS host
FROM club.gatherings g

-- name: invitation
-- Every pass has a time, also those that were not mailed by the club.
SELECT p.gathering AS event_id, p.person AS member_id, 'Student' AS role, a.comes AS attending, p.pass AS token,
    p.issued_at AS sent_at
FROM club.passes p LEFT JOIN club.answers a USING (gathering, person)
UNION ALL
SELECT a.gathering, a.person, 'Student', a.comes, NULL, NULL FROM club.answers a
WHERE NOT EXISTS (SELECT FROM club.passes p WHERE p.gathering = a.gathering AND p.person = a.person)

-- name: ban
SELECT p.no AS id, p.no AS member_id, p.barred_until AS expires_at FROM club.people p WHERE p.barred_until IS NOT NULL

-- name: subscription
SELECT p.no AS member_id, 1::bigint AS group_id FROM club.people p WHERE p.wants_mail AND p.left_on IS NULL

-- name: member
SELECT p.no AS id, p.given_name AS name, p.family_name AS surname, p.mail::text AS email,
    timestamptz '2020-01-01 00:00Z' AS accepted_toc_at
FROM club.people p WHERE p.left_on IS NULL /* who left the club is not a member: no `deleted` here */

-- name: group
SELECT 1::bigint AS id, 1::bigint AS chapter_id, 'Students' AS name

-- name: chapter
SELECT 1::bigint AS id, 'The club; its :zone is no parameter in a text' AS name, 'club@example.org' AS email,
    :zone AS time_zone;

-- name: place
WITH wanted AS (
    SELECT * FROM jsonb_to_recordset(:rows) AS w(event_id bigint, member_id bigint, role text, token uuid)
), made AS (
    INSERT INTO club.passes (gathering, person, pass, issuer) SELECT event_id, member_id, token, 'bidden' FROM wanted
    ON CONFLICT (gathering, person) DO NOTHING RETURNING *
)
SELECT p.gathering AS event_id, p.person AS member_id, 'Student' AS role, p.pass AS token, p.issuer = 'bidden' AS ours
FROM (
    SELECT * FROM made
    UNION ALL SELECT p.* FROM wanted w JOIN club.passes p ON p.gathering = w.event_id AND p.person = w.member_id
) p;
