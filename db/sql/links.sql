-- The links in mails. A token identifies one invitation: (event, member, role).

-- name: invitation_of_token
SELECT v.event_id, v.member_id, v.role, v.attending, m.name AS member_name,
    e.cancelled_at IS NOT NULL AS is_cancelled, e.starts_at <= now() AS has_begun,
    e.ends_at <= now() AS is_over,
    EXISTS (
        SELECT FROM event_subscriptions s
        WHERE s.event_id = v.event_id AND s.member_id = v.member_id AND s.role = v.role
    ) AS on_list
FROM invitations v
JOIN events e ON e.id = v.event_id
JOIN members m ON m.id = v.member_id AND m.deleted_at IS NULL
WHERE v.token = %(token)s

-- name: answer_invitation
-- Until the event starts; the last answer counts.
UPDATE invitations v SET attending = %(attending)s
FROM events e, members m
WHERE v.token = %(token)s AND e.id = v.event_id AND e.cancelled_at IS NULL AND e.starts_at > now()
    AND m.id = v.member_id AND m.deleted_at IS NULL

-- fragment: lists_of_token
-- The lists that led to this invitation: those of its role in the chapters that hold the event.
invitations v
JOIN members m ON m.id = v.member_id AND m.deleted_at IS NULL
JOIN event_chapters ec ON ec.event_id = v.event_id
JOIN groups g ON g.chapter_id = ec.chapter_id
    AND g.name = CASE v.role WHEN 'Student' THEN 'Students' ELSE 'Coaches' END
JOIN subscriptions s ON s.group_id = g.id AND s.member_id = v.member_id
WHERE v.token = %(token)s

-- name: leave_lists
-- Idempotent: the first time counts.
UPDATE subscriptions SET left_at = now()
WHERE left_at IS NULL AND (member_id, group_id) IN (SELECT s.member_id, s.group_id FROM {{lists_of_token}})

-- name: join_lists_again
UPDATE subscriptions SET left_at = NULL
WHERE left_at IS NOT NULL AND (member_id, group_id) IN (SELECT s.member_id, s.group_id FROM {{lists_of_token}})
