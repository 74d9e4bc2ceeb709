-- How bidden reads the database of codebar's planner (its tables as of late 2026). Zoneless times are taken in
-- BIDDEN_SOURCE_TIME_ZONE, which is the zone of the application server. What to grant: docs/how-to/use-your-own-database.md.
--
-- Workshops and events count their ids apart, bidden does not: a workshop n is 4n + 1 here, an event n is 4n + 2.

-- name: chapter
SELECT id, name, email, time_zone FROM chapters

-- name: group
SELECT id, chapter_id, name FROM groups

-- name: member
-- Anonymised, deactivated and merged members keep their rows. Names may be missing; an address may be none at all, and
-- then the member is set aside.
SELECT id, coalesce(nullif(btrim(name), ''), 'Member') AS name, surname, email, accepted_toc_at,
    email ~ '^deleted_user_\d+@codebar\.io$' OR email ~ '^(subkeyed|duplicate)\.\d+\..*@codebar\.io$' AS deleted
FROM members

-- name: subscription
-- Who left a list keeps a row, with discarded_at.
SELECT DISTINCT s.member_id, s.group_id
FROM subscriptions s LEFT JOIN members m ON m.id = s.member_id
WHERE s.discarded_at IS NULL
    AND (m.email ~ '^deleted_user_\d+@codebar\.io$' OR m.email ~ '^(subkeyed|duplicate)\.\d+\..*@codebar\.io$')
    IS NOT TRUE

-- name: ban
-- A ban without an end holds for ever.
SELECT id, member_id, expires_at, coalesce(permanent, false) OR expires_at IS NULL AS permanent
FROM bans WHERE member_id IS NOT NULL

-- name: event
-- Of several hosts the first; an empty address is no host. What is over for two days is left as it was.
SELECT 4 * w.id + 1 AS id, CASE WHEN w.virtual THEN 'virtual_workshop' ELSE 'workshop' END AS kind,
    coalesce(nullif(w.title, ''), CASE WHEN w.virtual THEN 'Virtual Workshop' ELSE 'Workshop' END) AS name,
    nullif(w.description, '') AS description,
    CASE WHEN w.chapter_id IS NOT NULL THEN ARRAY[w.chapter_id] END AS chapter_ids,
    w.date_and_time AS starts_at, coalesce(w.ends_at, w.date_and_time) AS ends_at, NULL::text AS time_zone,
    coalesce(w.invitable, true) AS invitable, 'one' AS role_policy,
    (
        SELECT CASE WHEN h.address <> '' THEN jsonb_build_object('name', h.name, 'address', h.address) END
        FROM (
            SELECT s.name, concat_ws(', ', nullif(a.flat, ''), nullif(a.street, ''), nullif(a.city, ''),
                nullif(a.postal_code, '')) AS address
            FROM workshop_sponsors ws JOIN sponsors s ON s.id = ws.sponsor_id
            LEFT JOIN addresses a ON a.sponsor_id = s.id
            WHERE ws.workshop_id = w.id AND ws.host ORDER BY ws.id, a.id LIMIT 1
        ) h
    ) AS host,
    'workshop/' || w.id AS ref, NULL::text AS audience, 'https://codebar.io/invitation/{token}' AS rsvp_url
FROM workshops w WHERE w.date_and_time > localtimestamp - interval '2 days' OR w.date_and_time IS NULL
UNION ALL
SELECT 4 * e.id + 2, 'event', e.name, nullif(e.description, ''),
    (SELECT array_agg(DISTINCT ce.chapter_id) FROM chapters_events ce WHERE ce.event_id = e.id),
    e.date_and_time, coalesce(e.ends_at, e.date_and_time), e.time_zone, coalesce(e.invitable, false), 'one',
    CASE WHEN e.virtual THEN jsonb_build_object('name', 'Online', 'address', 'Online') ELSE (
        SELECT CASE WHEN h.address <> '' THEN jsonb_build_object('name', h.name, 'address', h.address) END
        FROM (
            SELECT s.name, concat_ws(', ', nullif(a.flat, ''), nullif(a.street, ''), nullif(a.city, ''),
                nullif(a.postal_code, '')) AS address
            FROM sponsors s LEFT JOIN addresses a ON a.sponsor_id = s.id
            WHERE s.id = e.venue_id ORDER BY a.id LIMIT 1
        ) h
    ) END,
    'event/' || e.id, lower(nullif(e.audience, '')), 'https://codebar.io/events/' || e.slug || '/invitation/{token}'
FROM events e WHERE e.date_and_time > localtimestamp - interval '2 days'

-- name: invitation
-- A row was mailed when it was made, unless something else made it (`source`), or a failure is logged of it and no success.
SELECT 4 * i.workshop_id + 1 AS event_id, i.member_id, i.role, i.attending, i.token,
    CASE WHEN i.source IS NULL AND NOT EXISTS (
        SELECT FROM invitation_log_entries x WHERE x.invitation_type = 'WorkshopInvitation' AND x.invitation_id = i.id
        GROUP BY x.invitation_id HAVING bool_or(x.status = 'failed') AND NOT bool_or(x.status = 'success')
    ) THEN i.created_at END AS sent_at
FROM workshops w JOIN workshop_invitations i ON i.workshop_id = w.id
WHERE w.date_and_time > localtimestamp - interval '2 days'
UNION ALL
SELECT 4 * i.event_id + 2, i.member_id, i.role, i.attending, i.token,
    CASE WHEN i.source IS NULL AND NOT EXISTS (
        SELECT FROM invitation_log_entries x WHERE x.invitation_type = 'Invitation' AND x.invitation_id = i.id
        GROUP BY x.invitation_id HAVING bool_or(x.status = 'failed') AND NOT bool_or(x.status = 'success')
    ) THEN i.created_at END
FROM events e JOIN invitations i ON i.event_id = e.id
WHERE e.date_and_time > localtimestamp - interval '2 days'

-- name: place
-- One row for a member and a workshop, in whichever role, as planner's own invitations have it: where there is one, it is
-- left alone, and the system that made it mails. Ours have the source 'bidden'. Run as BIDDEN_SOURCE_WRITER_URL.
WITH wanted AS MATERIALIZED (
    SELECT * FROM json_to_recordset(:rows) AS w(event_id bigint, member_id bigint, role text, token text)
), of_workshops AS (
    INSERT INTO workshop_invitations (workshop_id, member_id, role, token, source, created_at, updated_at)
    SELECT w.event_id / 4, w.member_id, w.role, w.token, 'bidden', localtimestamp, localtimestamp
    FROM wanted w
    WHERE w.event_id % 4 = 1 AND EXISTS (SELECT FROM workshops x WHERE x.id = w.event_id / 4) AND NOT EXISTS (
        SELECT FROM workshop_invitations i WHERE i.workshop_id = w.event_id / 4 AND i.member_id = w.member_id
    )
    ON CONFLICT DO NOTHING
    RETURNING workshop_id, member_id, role, token, source
), of_events AS (
    INSERT INTO invitations (event_id, member_id, role, token, source, created_at, updated_at)
    SELECT w.event_id / 4, w.member_id, w.role, w.token, 'bidden', localtimestamp, localtimestamp
    FROM wanted w
    WHERE w.event_id % 4 = 2 AND EXISTS (SELECT FROM events x WHERE x.id = w.event_id / 4) AND NOT EXISTS (
        SELECT FROM invitations i WHERE i.event_id = w.event_id / 4 AND i.member_id = w.member_id
    )
    ON CONFLICT DO NOTHING
    RETURNING event_id, member_id, role, token, source
)
SELECT 4::bigint * i.workshop_id + 1 AS event_id, i.member_id, i.role, i.token, i.source IS NOT DISTINCT FROM 'bidden' AS ours
FROM (
    SELECT * FROM of_workshops
    UNION
    SELECT i.workshop_id, i.member_id, i.role, i.token, i.source
    FROM wanted w JOIN workshop_invitations i ON i.workshop_id = w.event_id / 4 AND i.member_id = w.member_id
    WHERE w.event_id % 4 = 1
) i WHERE i.role IS NOT NULL AND i.token IS NOT NULL
UNION ALL
SELECT 4::bigint * i.event_id + 2, i.member_id, i.role, i.token, i.source IS NOT DISTINCT FROM 'bidden'
FROM (
    SELECT * FROM of_events
    UNION
    SELECT i.event_id, i.member_id, i.role, i.token, i.source
    FROM wanted w JOIN invitations i ON i.event_id = w.event_id / 4 AND i.member_id = w.member_id
    WHERE w.event_id % 4 = 2
) i WHERE i.role IS NOT NULL AND i.token IS NOT NULL

-- name: report
-- A log for each chapter of the event, found again by when the batch began; an entry for each member, in the log of one
-- chapter. Planner has one running log for an audience: while another batch's is in the way of any of them nothing is
-- returned, and it is tried again, at last when ours has ended. What is unknown is `failed`, with its reason, until it is known.
WITH batch AS MATERIALIZED (
    SELECT CASE b.event_id % 4 WHEN 1 THEN 'Workshop' ELSE 'Event' END AS loggable_type, b.event_id / 4 AS loggable_id,
        b.chapter_ids, b.audience, b.state, b.started_at::timestamp AS started_at, b.completed_at::timestamp AS completed_at,
        b.error
    FROM json_to_record(:batch) AS b(event_id bigint, chapter_ids json, audience text, state text,
        started_at timestamptz, completed_at timestamptz, error text)
    WHERE CASE b.event_id % 4 WHEN 1 THEN EXISTS (SELECT FROM workshops w WHERE w.id = b.event_id / 4)
        WHEN 2 THEN EXISTS (SELECT FROM events e WHERE e.id = b.event_id / 4) END
), entries AS MATERIALIZED (
    SELECT e.member_id, e.chapter_id, e.token, e.at::timestamp AS at,
        CASE e.status WHEN 'sent' THEN 'success' WHEN 'excluded' THEN 'skipped' WHEN 'unknown' THEN 'failed' ELSE e.status END
            AS status,
        CASE e.status WHEN 'sent' THEN NULL WHEN 'unknown' THEN 'not known whether it arrived: ' || coalesce(e.reason, '')
            ELSE e.reason END AS reason
    FROM json_to_recordset(:entries) AS e(member_id bigint, chapter_id bigint, status text, reason text, token text,
        at timestamptz)
), logs AS MATERIALIZED (
    SELECT l.id, l.chapter_id FROM batch b JOIN invitation_logs l ON l.loggable_type = b.loggable_type
        AND l.loggable_id = b.loggable_id AND l.audience = b.audience AND l.action = 'invite'
        AND l.started_at = b.started_at
), made AS (
    INSERT INTO invitation_logs (loggable_type, loggable_id, chapter_id, audience, action, status, started_at, expires_at,
        created_at, updated_at)
    SELECT b.loggable_type, b.loggable_id, c.id::bigint, b.audience, 'invite',
        CASE WHEN b.state IN ('completed', 'cancelled') THEN 'completed' ELSE 'running' END, b.started_at,
        b.started_at + interval '180 days', localtimestamp, localtimestamp
    FROM batch b CROSS JOIN LATERAL json_array_elements_text(b.chapter_ids) AS c(id)
    WHERE NOT EXISTS (SELECT FROM logs l WHERE l.chapter_id = c.id::bigint)
    ON CONFLICT DO NOTHING
    RETURNING id, chapter_id
), before AS MATERIALIZED (
    SELECT x.id, x.invitation_log_id, x.member_id, x.status FROM logs l
    JOIN invitation_log_entries x ON x.invitation_log_id = l.id
), changed AS (
    UPDATE invitation_log_entries x SET status = e.status, failure_reason = e.reason, processed_at = e.at,
        updated_at = localtimestamp
    FROM before k JOIN entries e ON e.member_id = k.member_id
    WHERE x.id = k.id
), added AS (
    INSERT INTO invitation_log_entries (invitation_log_id, member_id, invitation_type, invitation_id, status,
        failure_reason, processed_at, created_at, updated_at)
    SELECT l.id, e.member_id, CASE WHEN i.id IS NOT NULL THEN i.type END, i.id, e.status, e.reason, e.at, localtimestamp,
        localtimestamp
    FROM entries e JOIN logs l ON l.chapter_id = e.chapter_id CROSS JOIN batch b
    LEFT JOIN LATERAL (
        SELECT 'WorkshopInvitation' AS type, w.id FROM workshop_invitations w
        WHERE b.loggable_type = 'Workshop' AND w.token = e.token
        UNION ALL
        SELECT 'Invitation', v.id FROM invitations v WHERE b.loggable_type = 'Event' AND v.token = e.token
    ) i ON true
    WHERE NOT EXISTS (SELECT FROM before k WHERE k.member_id = e.member_id)
), counts AS (
    SELECT l.id, count(n.status) AS total, count(*) FILTER (WHERE n.status = 'success') AS success,
        count(*) FILTER (WHERE n.status = 'failed') AS failure, count(*) FILTER (WHERE n.status = 'skipped') AS skipped
    FROM logs l LEFT JOIN (
        SELECT k.invitation_log_id, coalesce(e.status, k.status) AS status
        FROM before k LEFT JOIN entries e ON e.member_id = k.member_id
        UNION ALL
        SELECT l.id, e.status FROM entries e JOIN logs l ON l.chapter_id = e.chapter_id
        WHERE NOT EXISTS (SELECT FROM before k WHERE k.member_id = e.member_id)
    ) n ON n.invitation_log_id = l.id
    GROUP BY l.id
), written AS (
    UPDATE invitation_logs l SET total_invitees = c.total, success_count = c.success, failure_count = c.failure,
        skipped_count = c.skipped, error_message = b.error, updated_at = localtimestamp,
        status = CASE WHEN b.state IN ('completed', 'cancelled') THEN 'completed' ELSE l.status END,
        completed_at = CASE WHEN b.state IN ('completed', 'cancelled') THEN b.completed_at END
    FROM counts c, batch b WHERE l.id = c.id
)
SELECT b.loggable_id FROM batch b
WHERE NOT EXISTS (
    SELECT FROM json_array_elements_text(b.chapter_ids) AS c(id)
    WHERE NOT EXISTS (SELECT FROM logs l WHERE l.chapter_id = c.id::bigint)
        AND NOT EXISTS (SELECT FROM made m WHERE m.chapter_id = c.id::bigint)
) AND NOT EXISTS (
    SELECT FROM entries e
    WHERE NOT EXISTS (SELECT FROM before k WHERE k.member_id = e.member_id)
        AND NOT EXISTS (SELECT FROM logs l WHERE l.chapter_id = e.chapter_id)
)

-- name: leave
-- Who left a list by a link in a mail. Run as BIDDEN_SOURCE_WRITER_URL.
UPDATE subscriptions s SET discarded_at = localtimestamp, updated_at = localtimestamp
FROM json_to_recordset(:rows) AS r(member_id bigint, group_id bigint)
WHERE s.member_id = r.member_id AND s.group_id = r.group_id AND s.discarded_at IS NULL
