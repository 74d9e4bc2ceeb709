-- Who may be mailed, said once. The fragments stand on the aliases m (members) and e (events).

-- fragment: bans_that_hold
-- Banned while any ban is permanent or unexpired, whatever the others say (FM-33).
bans WHERE bans.member_id = m.id AND (bans.permanent OR bans.expires_at > now())

-- fragment: is_banned
EXISTS (SELECT FROM {{bans_that_hold}})

-- fragment: answer
-- An answer is the member's: given for one role it counts for both, and a yes counts before a no.
(SELECT CASE WHEN bool_or(v.attending) THEN 'signed_up' WHEN NOT bool_and(v.attending) THEN 'declined' END
 FROM invitations v WHERE v.event_id = e.id AND v.member_id = m.id)

-- fragment: bar_at_hand_over
-- Why this member may not be mailed for w.role now; null when nothing stands against it. Asked in the statement
-- that marks (FM-25), so nothing can change between the question and the mark.
coalesce(
    CASE WHEN m.deleted_at IS NOT NULL THEN 'member_deleted' WHEN e.cancelled_at IS NOT NULL THEN 'event_cancelled' END,
    {{answer}},
    CASE
        WHEN m.accepted_toc_at IS NULL THEN 'terms_not_accepted'
        -- LIMIT: one probe for each member. EXISTS might read all bans there are, for a handful of members.
        WHEN (SELECT true FROM {{bans_that_hold}} LIMIT 1) THEN 'banned'
        WHEN NOT EXISTS (
            SELECT FROM event_subscriptions s
            WHERE s.event_id = e.id AND s.member_id = m.id AND s.role = w.role
        ) THEN 'left_list'
    END
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
