-- The outbox: one column, publish_at, says when an item is due for the topic. A publish claim moves it a little into
-- the future: no lock is held while talking to Kafka, and the items of a dispatcher that dies become due again.

-- name: claim_due_items
-- In the order of publishing: by due time, then in the shuffled order of the batch.
WITH due AS MATERIALIZED (
    SELECT i.batch_id, i.member_id, b.event_id, b.action, i.publish_at, i.position
    FROM batch_items i JOIN batches b ON b.id = i.batch_id
    WHERE i.publish_at <= now() AND b.state <> 'paused'
    ORDER BY i.publish_at, i.position
    LIMIT %(limit)s
    FOR UPDATE OF i SKIP LOCKED
), claimed AS (
    UPDATE batch_items i SET publish_at = now() + %(claim_seconds)s * interval '1 second'
    FROM due
    WHERE i.batch_id = due.batch_id AND i.member_id = due.member_id
    RETURNING i.batch_id, i.member_id, i.roles, i.publish_at AS claimed_until
)
SELECT c.*, due.event_id, due.action
FROM claimed c JOIN due ON due.batch_id = c.batch_id AND due.member_id = c.member_id
ORDER BY due.publish_at, due.position

-- name: items_claimed_by_trigger
-- What a trigger has just planned and claimed, in the order of publishing.
SELECT i.batch_id, i.member_id, i.roles, i.publish_at AS claimed_until, b.event_id, b.action
FROM batch_items i JOIN batches b ON b.id = i.batch_id
WHERE i.batch_id = %(batch_id)s AND i.excluded IS NULL AND i.settled_at IS NULL AND i.publish_at IS NOT NULL
    AND i.kafka_offset IS NULL
ORDER BY i.position

-- name: store_receipts
-- The brokers have the messages. Only the publish claim under which they were sent is cleared: a newer due time stays.
-- SKIP LOCKED: an item that a worker is settling at this moment needs no acknowledgement.
WITH acked AS MATERIALIZED (
    SELECT i.batch_id, i.member_id, a.claimed_until, a.topic_id, a.partition, a.kafka_offset
    FROM jsonb_to_recordset(%(acks)s) AS a(batch_id bigint, member_id bigint, claimed_until timestamptz,
        topic_id uuid, partition int, kafka_offset bigint)
    CROSS JOIN LATERAL (
        SELECT batch_id, member_id FROM batch_items
        WHERE batch_id = a.batch_id AND member_id = a.member_id AND settled_at IS NULL
        FOR UPDATE SKIP LOCKED
    ) i
)
UPDATE batch_items i SET topic_id = a.topic_id, partition = a.partition, kafka_offset = a.kafka_offset,
    publish_at = CASE WHEN i.publish_at = a.claimed_until THEN NULL ELSE i.publish_at END
FROM acked a
WHERE i.batch_id = a.batch_id AND i.member_id = a.member_id

-- fragment: is_set_aside
-- No worker can settle item i of batch b: its member or a role of it does not exist, or the ledger has no row for it.
-- It is not published again, which would repeat for ever. `doctor` names it, a cancel settles it.
(NOT EXISTS (SELECT FROM members m WHERE m.id = i.member_id) OR EXISTS (
    SELECT FROM unnest(i.roles) AS r(role)
    WHERE r.role NOT IN ('Student', 'Coach') OR NOT EXISTS (
        SELECT FROM deliveries d JOIN events e ON e.id = d.event_id
        WHERE d.event_id = b.event_id AND d.action = b.action AND d.member_id = i.member_id
            AND d.slot = {{slot_of_role}}
    )
))

-- fragment: lost_items
-- Published, and the group will never read it: its offset is below the group's next one, or its partition or topic is
-- gone (a topic created again has another id); and it is neither settled nor under a live lease.
SELECT i.batch_id, i.member_id
FROM batch_items i
JOIN batches b ON b.id = i.batch_id AND b.state <> 'paused'
LEFT JOIN jsonb_to_recordset(%(partitions)s) AS p(partition int, next_offset bigint)
    ON p.partition = i.partition
WHERE i.settled_at IS NULL AND i.publish_at IS NULL
    AND (i.topic_id IS DISTINCT FROM %(topic_id)s OR p.partition IS NULL OR i.kafka_offset < p.next_offset)
    AND NOT EXISTS (
        SELECT FROM deliveries d
        WHERE d.event_id = b.event_id AND d.action = b.action AND d.member_id = i.member_id
            AND d.state = 'handing_off' AND d.lease_until > now()
    )
    AND NOT {{is_set_aside}}

-- name: make_lost_items_due
WITH lost AS MATERIALIZED (
    {{lost_items}}
    FOR UPDATE OF i SKIP LOCKED
)
UPDATE batch_items i SET publish_at = now()
FROM lost WHERE i.batch_id = lost.batch_id AND i.member_id = lost.member_id

-- name: count_unpublished
SELECT count(*) AS n FROM batch_items WHERE batch_id = %(batch_id)s AND publish_at IS NOT NULL
