-- Who may be mailed, said once. The fragments stand on the aliases m (members) and e (events).

-- fragment: is_banned
-- Banned while any ban is permanent or unexpired, whatever the others say (FM-33).
EXISTS (SELECT FROM bans WHERE bans.member_id = m.id AND (bans.permanent OR bans.expires_at > now()))

-- fragment: has_signed_up
-- An answer is the member's: given for one role it counts for both.
EXISTS (SELECT FROM invitations v WHERE v.event_id = e.id AND v.member_id = m.id AND v.attending)

-- fragment: has_declined
EXISTS (SELECT FROM invitations v WHERE v.event_id = e.id AND v.member_id = m.id AND NOT v.attending)

-- fragment: bar_at_hand_over
-- Why this member may not be mailed for w.role now; null when nothing stands against it. Asked in the statement
-- that marks (FM-25), so nothing can change between the question and the mark.
CASE
    WHEN m.deleted_at IS NOT NULL THEN 'member_deleted'
    WHEN e.cancelled_at IS NOT NULL THEN 'event_cancelled'
    WHEN {{has_signed_up}} THEN 'signed_up'
    WHEN {{has_declined}} THEN 'declined'
    WHEN m.accepted_toc_at IS NULL THEN 'terms_not_accepted'
    WHEN {{is_banned}} THEN 'banned'
    WHEN NOT EXISTS (
        SELECT FROM event_subscriptions s
        WHERE s.event_id = e.id AND s.member_id = m.id AND s.role = w.role
    ) THEN 'left_list'
END

-- fragment: slot_of_role
-- The slot of role r.role: under the policy `one` the key has no room for a second mail.
CASE e.role_policy WHEN 'one' THEN 'member' ELSE r.role END

-- fragment: new_token
-- 122 random bits, safe in a URL.
replace(gen_random_uuid()::text, '-', '')
