-- The outbox of outcomes: what triggers noted and the topic of outcomes does not have yet.

-- name: lock_outcomes
-- One publisher at a time, for as long as its session lives.
SELECT pg_try_advisory_lock(hashtextextended('bidden: outcomes', {{schema_seed}})) AS locked

-- name: outcomes_to_publish
-- In the order of their transactions, as far as they are about the same delivery: each waits for the row of the one before.
SELECT id, outcomes FROM outcome_outbox ORDER BY id LIMIT %(limit)s

-- name: note_all_outcomes
-- For a topic that is new, or was lost. What waits is among it. Before all that transactions under way have noted, or will:
-- their outcomes are newer than what this statement sees.
WITH waiting AS (
    DELETE FROM outcome_outbox
)
INSERT INTO outcome_outbox (id, outcomes) OVERRIDING SYSTEM VALUE
SELECT (SELECT least(min(id), 0) FROM outcome_outbox) - row_number() OVER (),
    jsonb_agg(jsonb_build_array(event_id, action, member_id, slot, role, state, fence, batch_id, updated_at))
FROM (
    SELECT *, row_number() OVER () / 1000 AS chunk FROM deliveries WHERE state NOT IN ('planned', 'handing_off')
) d
GROUP BY chunk

-- name: remove_outcomes
DELETE FROM outcome_outbox WHERE id = ANY(%(ids)s)
