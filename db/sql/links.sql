-- The links in mails. A token identifies one invitation: (event, member, role).

-- name: invitation_of_token
SELECT v.event_id, v.member_id, v.role, v.attending, m.name AS member_name,
    e.cancelled_at IS NOT NULL AS is_cancelled, e.starts_at <= now() AS has_begun,
    e.ends_at <= now() AS is_over, NOT e.invitable AS is_closed, {{obstacle_to_yes}} AS obstacle,
    {{has_left_list}} AS has_left_list, {{has_left_all}} AS has_left_all,
    EXISTS (
        SELECT FROM event_subscriptions s
        WHERE s.event_id = v.event_id AND s.member_id = v.member_id AND s.role = v.role
    ) AS on_list
FROM invitations v
JOIN events e ON e.id = v.event_id
JOIN members m ON m.id = v.member_id AND m.deleted_at IS NULL
WHERE v.token = %(token)s

-- name: answer_invitation
-- Until the event starts; the last answer counts. A yes is stored only where the rule lets the member come: the statement
-- asks it, so nothing can change in between.
UPDATE invitations v SET attending = %(attending)s
FROM events e, members m
WHERE v.token = %(token)s AND e.id = v.event_id AND e.cancelled_at IS NULL AND e.starts_at > now()
    AND m.id = v.member_id AND m.deleted_at IS NULL
    AND (NOT %(attending)s OR (e.invitable AND {{obstacle_to_yes}} IS NULL))

-- name: leave_lists
-- The lists that led to this invitation: those of its role in the chapters that hold the event, whichever lists these
-- are, now and later. Idempotent: the first time counts.
INSERT INTO opt_outs (member_id, chapter_id, role, left_at)
SELECT v.member_id, ec.chapter_id, v.role, now()
FROM invitations v
JOIN members m ON m.id = v.member_id AND m.deleted_at IS NULL
JOIN event_chapters ec ON ec.event_id = v.event_id
WHERE v.token = %(token)s
ORDER BY ec.chapter_id
ON CONFLICT (member_id, chapter_id, role) WHERE chapter_id IS NOT NULL DO NOTHING

-- name: leave_all_lists
-- Every list whose invitations have this installation's sender.
INSERT INTO opt_outs (member_id, left_at)
SELECT v.member_id, now() FROM invitations v JOIN members m ON m.id = v.member_id AND m.deleted_at IS NULL
WHERE v.token = %(token)s
ON CONFLICT (member_id) WHERE chapter_id IS NULL DO NOTHING

-- fragment: opt_outs_of_person
-- Those of the member and of every id with the same mailbox.
(o.member_id = %(member_id)s OR o.member_id IN (SELECT p.other_id FROM same_person p WHERE p.member_id = %(member_id)s))

-- name: join_lists_again
DELETE FROM opt_outs o USING event_chapters ec
WHERE {{opt_outs_of_person}} AND ec.event_id = %(event_id)s AND o.chapter_id = ec.chapter_id AND o.role = %(role)s

-- name: join_all_lists_again
DELETE FROM opt_outs o WHERE {{opt_outs_of_person}} AND o.chapter_id IS NULL

-- name: take_back_opt_out
DELETE FROM opt_outs o
WHERE {{opt_outs_of_person}} AND o.chapter_id IS NOT DISTINCT FROM %(chapter_id)s::bigint
    AND o.role IS NOT DISTINCT FROM %(role)s::text
