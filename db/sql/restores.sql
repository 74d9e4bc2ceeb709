-- The topics of claims and outcomes against the ledger: a database that was restored from a backup is behind them.

-- fragment: published_and_unknown
-- Both are published after the ledger's commit, so an event t that the row d does not have is of a ledger that went back in
-- time: a fence that it never gave, an outcome of a claim that it holds for open. A row is never removed.
(coalesce(d.fence, -1) < t.fence OR (d.fence = t.fence AND t.state <> 'claimed'
    AND (d.state = 'handing_off' OR (t.state = 'sent' AND d.state <> 'sent'))))

-- name: is_behind
SELECT EXISTS (
    SELECT FROM jsonb_to_recordset(%(events)s) AS t(event_id bigint, action text, member_id bigint, slot text, state text,
        fence bigint)
    LEFT JOIN LATERAL (
        SELECT fence, state FROM deliveries
        WHERE event_id = t.event_id AND action = t.action AND member_id = t.member_id AND slot = t.slot OFFSET 0
    ) d ON true
    WHERE {{published_and_unknown}}
) AS behind

-- name: create_published
CREATE TEMPORARY TABLE published (
    event_id bigint, action text, member_id bigint, slot text, role text, state text, fence bigint, batch_id bigint,
    PRIMARY KEY (event_id, action, member_id, slot)
)

-- name: keep_published
-- Of these events in their order, the newest that the ledger does not know. What is kept is replaced by later events, known
-- or not. Of a delivery that was sent nothing is newer.
INSERT INTO published AS p
SELECT DISTINCT ON (t.event_id, t.action, t.member_id, t.slot)
    t.event_id, t.action, t.member_id, t.slot, t.role, t.state, t.fence, t.batch_id
FROM jsonb_to_recordset(%(events)s) AS t(n int, event_id bigint, action text, member_id bigint, slot text, role text,
    state text, fence bigint, batch_id bigint)
LEFT JOIN LATERAL (
    SELECT fence, state FROM deliveries
    WHERE event_id = t.event_id AND action = t.action AND member_id = t.member_id AND slot = t.slot OFFSET 0
) d ON true
WHERE {{published_and_unknown}}
    OR EXISTS (
        SELECT FROM published k
        WHERE k.event_id = t.event_id AND k.action = t.action AND k.member_id = t.member_id AND k.slot = t.slot
    )
ORDER BY t.event_id, t.action, t.member_id, t.slot, t.fence DESC, t.n DESC
ON CONFLICT (event_id, action, member_id, slot) DO UPDATE
SET role = excluded.role, state = excluded.state, fence = excluded.fence, batch_id = excluded.batch_id
WHERE p.state <> 'sent'
    AND (excluded.fence > p.fence OR (excluded.fence = p.fence AND excluded.state <> 'claimed'))
RETURNING event_id, action, member_id, slot

-- name: learn
-- Adopts what was published. `sent` is proven. What was claimed, and has no outcome, or an unknown one, is unknown. Of anything
-- else nothing was sent under the newest claim: it stays as the backup had it, above that claim's fence. A delivery that the
-- backup did not have has no batch here: whose it was, is lost.
WITH changed AS (
    INSERT INTO deliveries AS d (event_id, action, member_id, slot, role, state, attempts, fence, batch_id, reason,
        updated_at)
    SELECT t.event_id, t.action, t.member_id, t.slot, t.role,
        CASE WHEN t.state IN ('claimed', 'unknown') THEN 'unknown' WHEN t.state = 'sent' THEN 'sent' ELSE 'planned' END,
        CASE WHEN t.state IN ('claimed', 'unknown', 'sent') THEN 1 ELSE 0 END, t.fence, b.id,
        CASE WHEN t.state IN ('claimed', 'unknown') THEN {{lost_by_restore}} END, now()
    FROM published t
    LEFT JOIN batches b ON b.id = t.batch_id AND b.event_id = t.event_id AND b.action = t.action
    ORDER BY t.event_id, t.action, t.member_id, t.slot
    ON CONFLICT (event_id, action, member_id, slot) DO UPDATE SET
        fence = greatest(d.fence, excluded.fence), owner = NULL, lease_until = NULL, updated_at = now(),
        state = CASE
            WHEN d.state = 'sent' OR excluded.state = 'sent' THEN 'sent'
            WHEN excluded.state = 'unknown' THEN 'unknown'
            WHEN d.state = 'handing_off' THEN 'planned'
            ELSE d.state
        END,
        attempts = d.attempts + excluded.attempts,
        reason = CASE WHEN d.state = 'sent' THEN d.reason ELSE excluded.reason END,
        batch_id = CASE WHEN d.state = 'sent' THEN d.batch_id WHEN excluded.attempts > 0 THEN excluded.batch_id
            ELSE d.batch_id END
    RETURNING d.event_id, d.action, d.member_id, d.slot, d.state, d.fence
)
SELECT count(*) FILTER (WHERE c.state = 'sent') AS sent,
    count(*) FILTER (WHERE c.state = 'unknown' AND t.state IN ('claimed', 'unknown')) AS unknown
FROM changed c JOIN published t ON t.event_id = c.event_id AND t.action = c.action AND t.member_id = c.member_id
    AND t.slot = c.slot

-- name: items_published
-- The open items of these deliveries.
SELECT jsonb_build_object('batch_id', i.batch_id, 'event_id', t.event_id, 'action', t.action, 'member_id', t.member_id,
    'slot', t.slot, 'partition', i.partition, 'kafka_offset', i.kafka_offset) AS touched
FROM published t
JOIN batches b ON b.event_id = t.event_id AND b.action = t.action
JOIN batch_items i ON i.batch_id = b.id AND i.member_id = t.member_id
WHERE i.settled_at IS NULL AND (t.slot = 'member' OR t.slot = ANY(i.roles))
ORDER BY i.batch_id, i.member_id, t.slot

-- name: keys_published
SELECT jsonb_build_object('event_id', event_id, 'action', action, 'member_id', member_id, 'slot', slot) AS touched
FROM published

-- name: renew_outbox
-- An outcome that the backup had in its outbox may be older than what was published since. Each delivery that is in the
-- outbox is published as the ledger has it now.
WITH emptied AS (
    DELETE FROM outcome_outbox RETURNING outcomes
), noted AS (
    SELECT DISTINCT (o->>0)::bigint AS event_id, o->>1 AS action, (o->>2)::bigint AS member_id, o->>3 AS slot
    FROM emptied CROSS JOIN LATERAL jsonb_array_elements(outcomes) o
), current AS (
    SELECT jsonb_build_array(d.event_id, d.action, d.member_id, d.slot, d.role, d.state, d.fence, d.batch_id,
        d.updated_at) AS outcome, row_number() OVER () / 1000 AS chunk
    FROM noted n JOIN deliveries d ON d.event_id = n.event_id AND d.action = n.action AND d.member_id = n.member_id
        AND d.slot = n.slot
    WHERE d.state <> 'handing_off'
)
INSERT INTO outcome_outbox (outcomes) SELECT jsonb_agg(outcome) FROM current GROUP BY chunk ORDER BY chunk

-- name: skip_batch_ids
-- The ids of batches that the backup did not have yet are on topics and in logs: none of them names another batch.
SELECT setval(pg_get_serial_sequence('batches', 'id'),
    greatest((SELECT max(batch_id) FROM published), (SELECT max(id) FROM batches), 1))

-- fragment: lost_by_restore
'claimed after the moment that was restored, and nothing says whether it was sent'

-- name: schema_to_back_up
SELECT quote_ident(current_schema()) AS quoted

-- name: in_the_way_of_restore
-- Tables of the schema, and the sessions of our processes in this database.
SELECT current_schema()::text AS schema,
    (SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm'))
        AS tables,
    (SELECT string_agg(DISTINCT application_name, ', ') FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'bidden%') AS sessions

-- name: sessions_of_workers
SELECT count(*) AS sessions FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'bidden-worker%%'
