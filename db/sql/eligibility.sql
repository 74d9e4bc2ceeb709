-- Who may be mailed, and why not: the one rule. Planning, dry run, claim, `why`, audit and pages select from it; no
-- other statement says what a reason means or which one counts first (ADR 19).
--
-- A reason that holds is an `ordinal`, its place in `reasons_in_order`. So the first reason is the least ordinal, all
-- reasons are the ordinals in order, and a member without an ordinal is eligible. Fragments use the aliases m (members)
-- and e (events).

-- fragment: reasons_in_order
-- Every reason about a member, a list or the event, in the order in which they count. `batch_cancelled` and
-- `not_in_source` are about the batch: db/sql/ledger.sql has them.
ARRAY['member_deleted', 'event_cancelled', 'not_subscribed', 'signed_up', 'declined', 'already_sent',
    'terms_not_accepted', 'banned', 'same_mailbox', 'left_list', 'unknown']

-- fragment: ineligibility
-- The reasons that count at every stage, as rows (member_id, ordinal) for the event e. A new reason is a branch here.
-- A branch is a set, not a condition on one member: a dry run reads it whole, a claim probes it for one member (ADR 19). So each
-- needs an index by member, and a constant ordinal, by which PostgreSQL skips the branches a page does not ask for.
-- A deleted member has no terms either: that is no second reason. An answer is the person's: given for one role it
-- counts for both, and a yes counts before a no. What a person answered, or was banned for, counts under every id with
-- their mailbox (ADR 32).
SELECT p.id AS member_id, array_position({{reasons_in_order}}, 'member_deleted') AS ordinal
FROM members p WHERE p.deleted_at IS NOT NULL
UNION ALL
SELECT p.id, array_position({{reasons_in_order}}, 'terms_not_accepted')
FROM members p WHERE p.accepted_toc_at IS NULL AND p.deleted_at IS NULL
UNION ALL
SELECT v.member_id, array_position({{reasons_in_order}}, 'signed_up') FROM ({{answers}}) v WHERE v.attending
UNION ALL
SELECT v.member_id, array_position({{reasons_in_order}}, 'declined')
FROM ({{answers}}) v GROUP BY v.member_id HAVING NOT bool_or(v.attending)
UNION ALL
SELECT x.member_id, array_position({{reasons_in_order}}, 'banned') FROM bans x WHERE {{ban_is_in_force}}
UNION ALL
SELECT p.member_id, array_position({{reasons_in_order}}, 'banned')
FROM {{pairs}} p JOIN bans x ON x.member_id = p.other_id AND {{ban_is_in_force}}
UNION ALL
SELECT p.member_id, array_position({{reasons_in_order}}, 'same_mailbox')
FROM {{pairs}} p WHERE {{other_goes_first}}

-- fragment: ban_is_in_force
-- Of the ban x. One such ban is enough, whatever other bans the member has (FM-33).
(x.permanent OR x.expires_at > now())

-- fragment: pairs
-- Members and the others with their mailbox.
same_person

-- fragment: no_pairs
-- In place of `pairs`, for members who share no mailbox: PostgreSQL drops what it finds here when it plans.
(SELECT * FROM same_person WHERE false)

-- fragment: answers
-- Of the event e: each answer, under every id of its person.
SELECT v.member_id, v.attending FROM invitations v WHERE v.event_id = e.id AND v.attending IS NOT NULL
UNION ALL
SELECT p.member_id, v.attending
FROM {{pairs}} p JOIN invitations v ON v.event_id = e.id AND v.member_id = p.other_id AND v.attending IS NOT NULL

-- fragment: obstacle_to_yes
-- Why the member m of the invitation v may not say yes to the event e now, or may no longer: the rule of the claim,
-- without what is no obstacle to the answer itself. Whoever was never on a list, but has an invitation of another
-- system, may answer it; who was mailed by us, or left by a link, was on one. Whose invitation the directory moved to
-- another role after the mail was on the list of the role in the mail.
({{reasons_in_order}})[least(
    (SELECT min(r.ordinal) FROM ({{ineligibility}}) r WHERE r.member_id = m.id
        AND ({{reasons_in_order}})[r.ordinal] NOT IN ('signed_up', 'declined', 'same_mailbox')),
    CASE WHEN e.cancelled_at IS NOT NULL THEN array_position({{reasons_in_order}}, 'event_cancelled') END,
    CASE WHEN NOT EXISTS (
        SELECT FROM event_subscriptions s
        WHERE s.event_id = e.id AND s.member_id = m.id AND (s.role = v.role OR {{was_mailed_as}})
    ) AND ({{has_left}} OR EXISTS (
        SELECT FROM deliveries d
        WHERE d.event_id = e.id AND d.action = 'invite' AND d.member_id = m.id AND d.batch_id IS NOT NULL
    )) THEN array_position({{reasons_in_order}}, 'left_list') END
)]

-- fragment: was_mailed_as
-- Whether the member of the invitation v has no delivery in its role, and one in that of the subscription s.
(
    SELECT coalesce(bool_and(d.role <> v.role) AND bool_or(d.role = s.role), false) FROM deliveries d
    WHERE d.event_id = v.event_id AND d.action = 'invite' AND d.member_id = v.member_id
)

-- fragment: has_left
-- Whether the person of the invitation v has left its lists, or all.
({{has_left_all}} OR {{has_left_list}})

-- fragment: has_left_all
EXISTS (SELECT FROM opted_out o WHERE o.member_id = v.member_id AND o.chapter_id IS NULL)

-- fragment: has_left_list
EXISTS (
    SELECT FROM opted_out o JOIN event_chapters ec ON ec.chapter_id = o.chapter_id
    WHERE o.member_id = v.member_id AND o.role = v.role AND ec.event_id = v.event_id
)

-- fragment: other_goes_first
-- Of two members with one mailbox, the pair p: whether p.other_id is mailed about e and p.member_id is not (ADR 31). Who
-- was mailed, or may have been, goes first, whatever became of them; then who is planned; then who has an address that
-- every mail server takes; then the lower id. Who cannot be mailed themselves does not stand in the way; the reasons
-- that both share (answers, bans, lists left) are not asked again. Members on lists of different roles that are planned
-- at once are told apart at the claim.
EXISTS (
    SELECT FROM members a
    JOIN members b ON b.id = p.other_id
    CROSS JOIN LATERAL (
        SELECT coalesce(max({{hold_on_mailbox}}) FILTER (WHERE d.member_id = a.id), 0) AS own,
            coalesce(max({{hold_on_mailbox}}) FILTER (WHERE d.member_id = b.id), 0) AS other
        FROM deliveries d WHERE d.event_id = e.id AND d.action = 'invite' AND d.member_id IN (a.id, b.id)
    ) h
    WHERE a.id = p.member_id AND (h.other = 2 OR (
        h.own < 2 AND b.mailbox = a.mailbox AND b.accepted_toc_at IS NOT NULL AND EXISTS (
            SELECT FROM event_subscriptions s WHERE s.event_id = e.id AND s.member_id = b.id AND (h.other = 1 OR EXISTS (
                SELECT FROM event_subscriptions x
                WHERE x.event_id = e.id AND x.member_id = a.id AND x.role = s.role
            ))
        ) AND (h.other > h.own OR (
            h.other = h.own AND (b.email ~ '[^ -~]', b.id) < (a.email ~ '[^ -~]', a.id)
        ))
    ))
)

-- fragment: hold_on_mailbox
-- What the delivery d makes of its member's mailbox: 2 mailed, or maybe; 1 to be mailed; 0 nothing.
CASE WHEN d.state IN ('sent', 'handing_off', 'unknown') THEN 2 WHEN d.state IN ('planned', 'retry') THEN 1 ELSE 0 END

-- fragment: ineligible_members
-- Every member who has any of these reasons, with the first. For statements about many members.
SELECT r.member_id, min(r.ordinal) AS ordinal
FROM events e CROSS JOIN LATERAL ({{ineligibility}}) r WHERE e.id = %(event_id)s GROUP BY r.member_id

-- fragment: ineligible_ordinal
-- The same for the member m alone and the event e; null when there is none. For statements about few members.
(SELECT min(r.ordinal) FROM ({{ineligibility}}) r WHERE r.member_id = m.id)

-- fragment: slot_ordinal
-- Why no mail may be planned for the slot whose delivery is d; null for an open slot, which may have no delivery yet.
-- `hold_unknown` is whether unknown deliveries stay closed (the policy `hold`).
CASE WHEN d.state = 'sent' THEN array_position({{reasons_in_order}}, 'already_sent')
    WHEN d.state = 'unknown' AND %(hold_unknown)s THEN array_position({{reasons_in_order}}, 'unknown') END

-- fragment: reasons_of_slots
-- The reasons that `slot_ordinal` can give.
ARRAY['already_sent', 'unknown']

-- fragment: ordinal_of_slots
-- Of all slots d of a candidate: null while one is open. A slot that is unknown outweighs one that was sent.
CASE WHEN bool_and(d.ordinal IS NOT NULL) THEN max(d.ordinal) END

-- fragment: ineligibility_reason_at_planning
-- Of a candidate c, from their own first ordinal and that of their slots; null when eligible. Whether the event is
-- cancelled was checked before, and candidates are on a list.
({{reasons_in_order}})[least(c.ordinal, c.ordinal_of_slots)]

-- fragment: is_candidate
-- Whether planning counts the subscriber c at all.
c.excluded IS DISTINCT FROM 'member_deleted'

-- fragment: ineligibility_reason_at_claim
-- At the claim: why m may not be mailed for w.role now; null when eligible. The statement that claims evaluates it
-- (FM-25), so nothing can change in between.
({{reasons_in_order}})[least(
    {{ineligible_ordinal}},
    CASE WHEN e.cancelled_at IS NOT NULL THEN array_position({{reasons_in_order}}, 'event_cancelled') END,
    CASE WHEN NOT EXISTS (
        SELECT FROM event_subscriptions s WHERE s.event_id = e.id AND s.member_id = m.id AND s.role = w.role
    ) THEN array_position({{reasons_in_order}}, 'left_list') END
)]

-- fragment: ineligibility_reasons
-- For `why`: all reasons that hold for m and e now, in order.
ARRAY(
    SELECT ({{reasons_in_order}})[r.ordinal] FROM (
        SELECT ordinal FROM ({{ineligibility}}) i WHERE i.member_id = m.id
        UNION
        SELECT array_position({{reasons_in_order}}, 'event_cancelled') WHERE e.cancelled_at IS NOT NULL
        UNION
        SELECT array_position({{reasons_in_order}}, 'not_subscribed') WHERE NOT EXISTS (
            SELECT FROM event_subscriptions s WHERE s.event_id = e.id AND s.member_id = m.id
        )
    ) r ORDER BY r.ordinal
)

-- fragment: subscribed
-- A CTE: every subscriber of the audience's lists, once (FM-01), with the roles of these lists.
subscribed AS MATERIALIZED (
    SELECT member_id, array_agg(DISTINCT role) AS roles FROM event_subscriptions
    WHERE event_id = %(event_id)s AND role = ANY(%(roles)s) GROUP BY member_id
)

-- fragment: lists
-- A CTE: the event's lists of the audience, with the slot of their subscribers. For statements that must walk
-- subscriptions in an order of their own.
lists AS MATERIALIZED (
    SELECT r.id, r.chapter_id, r.role, {{slot_of_role}} AS slot
    FROM events e
    JOIN event_chapters c ON c.event_id = e.id
    JOIN (SELECT id, chapter_id, {{role_of_list}} AS role FROM groups) r ON r.chapter_id = c.chapter_id
    WHERE e.id = %(event_id)s AND r.role = ANY(%(roles)s) AND {{is_in_audience}}
)

-- fragment: is_in_audience
-- Whether lists of the role r.role are in the audience of the event e, as in the view `event_subscriptions`.
e.audience IS DISTINCT FROM CASE r.role WHEN 'Student' THEN 'coaches' ELSE 'students' END

-- fragment: is_on_list
-- Of the subscription s to the list l (chapter_id, role), as in the view `event_subscriptions`: who left it by a link
-- stays off it, whatever the directory says (ADR 32).
NOT EXISTS (
    SELECT FROM opted_out o
    WHERE o.member_id = s.member_id AND (o.chapter_id IS NULL OR (o.chapter_id = l.chapter_id AND o.role = l.role))
)

-- fragment: roles_to_mail
-- Of the subscriber s: the roles they are to be mailed for about e, in the event's order of precedence.
(
    SELECT role, rank FROM unnest(%(roles)s::text[]) WITH ORDINALITY AS u(role, rank)
    WHERE role = ANY(s.roles) ORDER BY rank
    LIMIT CASE e.role_policy WHEN 'one' THEN 1 ELSE 2 END
)

-- fragment: slot_of_role
-- The slot of role r.role: under the policy `one` the key has no room for a second mail.
CASE e.role_policy WHEN 'one' THEN 'member' ELSE r.role END

-- fragment: role_of_list
-- The role that the name of a list stands for, as in the view `event_subscriptions`.
CASE name WHEN 'Students' THEN 'Student' ELSE 'Coach' END

-- fragment: new_token
-- 122 random bits, safe in a URL.
replace(gen_random_uuid()::text, '-', '')
