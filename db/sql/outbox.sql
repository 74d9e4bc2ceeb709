-- The outbox: one column, publish_at, says when an item is due for the topic. A publish claim moves it a little into
-- the future: no lock is held while talking to Kafka, and the items of a dispatcher that dies become due again.
--
-- No statement here may cost more because more items wait, are on the topic, or were settled: each finds its rows in the
-- order of an index and stops at its limit. The indexes are partial: ix_batch_items_due, _published and _resting.

-- fragment: due_queues
-- What may be due, as queues of (batch, published before): a batch's new items, and its retries and lost items, which
-- would otherwise come after all new ones; each with its first item. Found by jumps in the index, one for each queue and
-- none for each item.
queues AS (
    (
        SELECT i.batch_id, i.kafka_offset IS NOT NULL AS again, i.publish_at, i.position FROM batch_items i
        WHERE i.publish_at IS NOT NULL
        ORDER BY i.batch_id, (i.kafka_offset IS NOT NULL), i.publish_at, i.position LIMIT 1
    )
    UNION ALL
    SELECT n.batch_id, n.again, n.publish_at, n.position
    FROM queues q
    CROSS JOIN LATERAL (
        SELECT i.batch_id, i.kafka_offset IS NOT NULL AS again, i.publish_at, i.position FROM batch_items i
        WHERE i.publish_at IS NOT NULL AND (i.batch_id, (i.kafka_offset IS NOT NULL)) > (q.batch_id, q.again)
        ORDER BY i.batch_id, (i.kafka_offset IS NOT NULL), i.publish_at, i.position LIMIT 1
    ) n
)

-- fragment: first_of_queue
-- Where queue q begins. While another session holds a snapshot, everything that was claimed since is still in the index
-- before it: the jump passes that once, and a scan from here on does not. An item without a position sorts last.
CASE WHEN q.position IS NULL THEN '-infinity' ELSE q.publish_at END AS from_at, coalesce(q.position, 0) AS from_position

-- fragment: may_be_published
-- Not of a paused batch, and not of a cancelled one while chunks settle its items (FM-39).
(b.state <> 'paused' AND (b.state <> 'cancelled' OR b.unapplied_since IS NULL))

-- fragment: may_be_published_now
-- Nor while the newest snapshot of the source is too old, or the source has yet to get the batch's invitations: what is
-- published then could not be claimed. What was in flight when a batch was cancelled is settled all the same.
({{may_be_published}} AND (b.needs_placing IS NOT TRUE OR b.state = 'cancelled') AND NOT {{source_is_stale}})

-- fragment: may_be_lost
-- While a decision is applied in chunks, the items of its batch follow by themselves.
(b.state <> 'paused' AND b.unapplied_since IS NULL)

-- name: claim_due_items
-- The queues take turns: one item of each, then a second one of each that has more, up to the limit. Within a queue in
-- the order of due times, then of the batch's shuffle. Turns are dealt without a lock, to a queue at most four times an
-- equal share and ten; then each queue's items are locked, and SKIP LOCKED gives a second dispatcher the next ones. By
-- ctid: one that has moved since this statement began is claimed by the next.
WITH RECURSIVE {{due_queues}}, open AS MATERIALIZED (
    SELECT q.batch_id, q.again, {{first_of_queue}}, 10 + 4 * %(limit)s::bigint / count(*) OVER () AS most
    FROM queues q
    JOIN batches b ON b.id = q.batch_id AND {{may_be_published_now}}
    WHERE q.publish_at <= now()
), turns AS (
    SELECT o.batch_id, o.again, o.from_at, o.from_position, t.turn
    FROM open o
    CROSS JOIN LATERAL (
        SELECT row_number() OVER () AS turn FROM (
            SELECT FROM batch_items i
            WHERE i.batch_id = o.batch_id AND (i.kafka_offset IS NOT NULL) = o.again AND i.publish_at <= now()
                AND (i.publish_at, i.position) >= (o.from_at, o.from_position)
            ORDER BY i.publish_at, i.position LIMIT least(o.most, %(limit)s::bigint)
        ) x
    ) t
    ORDER BY t.turn, o.batch_id DESC, o.again LIMIT %(limit)s
), shares AS MATERIALIZED (
    SELECT batch_id, again, from_at, from_position, count(*) AS share
    FROM turns GROUP BY batch_id, again, from_at, from_position
), due AS MATERIALIZED (
    SELECT i.place
    FROM shares s
    CROSS JOIN LATERAL (
        SELECT i.ctid AS place FROM batch_items i
        WHERE i.batch_id = s.batch_id AND (i.kafka_offset IS NOT NULL) = s.again AND i.publish_at <= now()
            AND (i.publish_at, i.position) >= (s.from_at, s.from_position)
        ORDER BY i.publish_at, i.position LIMIT s.share
        FOR UPDATE SKIP LOCKED
    ) i
), claimed AS (
    UPDATE batch_items i SET publish_at = now() + %(claim_seconds)s * interval '1 second'
    -- As an array: joined, the planner reads the whole table for a few hundred rows.
    WHERE i.ctid = ANY(ARRAY(SELECT place FROM due))
    RETURNING i.batch_id, i.member_id, i.roles, i.publish_at AS claimed_until, i.position,
        i.kafka_offset IS NOT NULL AS again
)
SELECT c.batch_id, c.member_id, c.roles, c.claimed_until, b.event_id, b.action
FROM claimed c JOIN batches b ON b.id = c.batch_id
ORDER BY row_number() OVER (PARTITION BY c.batch_id, c.again ORDER BY c.position), c.batch_id

-- name: items_claimed_by_trigger
-- What a trigger has just planned and claimed, in the order of publishing. The rest of its batch is due already.
SELECT i.batch_id, i.member_id, i.roles, i.publish_at AS claimed_until, b.event_id, b.action
FROM batch_items i JOIN batches b ON b.id = i.batch_id
WHERE i.batch_id = %(batch_id)s AND i.excluded IS NULL AND i.settled_at IS NULL AND i.publish_at > now()
    AND i.kafka_offset IS NULL AND i.position <= %(first_items)s
ORDER BY i.position

-- fragment: trace_of_batch
-- Batch b's; of one that a version without traces has planned, an own one that nobody records and that stays the same.
coalesce(b.traceparent,
    '00-' || md5(b.shuffle_seed::text) || '-' || substr(md5('span ' || b.shuffle_seed::text), 17) || '-00')

-- name: batch_origins
-- What all messages of these batches say of their event, however often they are published.
SELECT b.id AS batch_id, b.shuffle_seed, b.started_at, {{trace_of_batch}} AS traceparent
FROM batches b WHERE b.id = ANY(%(batches)s)

-- name: release_items
-- A trigger gives up its claim on what it will not publish: due now, unless somebody has claimed it meanwhile.
UPDATE batch_items i SET publish_at = now()
FROM jsonb_to_recordset(%(items)s) AS r(batch_id bigint, member_id bigint, claimed_until timestamptz)
WHERE i.batch_id = r.batch_id AND i.member_id = r.member_id AND i.publish_at = r.claimed_until

-- name: store_receipts
-- The brokers have the messages. Only the publish claim under which they were sent is cleared: a newer due time stays.
-- SKIP LOCKED: an item that a worker is settling at this moment needs no acknowledgement.
WITH acked AS MATERIALIZED (
    SELECT i.place, a.claimed_until, a.topic_id, a.partition, a.kafka_offset, a.kafka_timestamp
    FROM jsonb_to_recordset(%(acks)s) AS a(batch_id bigint, member_id bigint, claimed_until timestamptz,
        topic_id uuid, partition int, kafka_offset bigint, kafka_timestamp bigint)
    CROSS JOIN LATERAL (
        SELECT ctid AS place FROM batch_items
        WHERE batch_id = a.batch_id AND member_id = a.member_id AND settled_at IS NULL
        FOR UPDATE SKIP LOCKED
    ) i
)
UPDATE batch_items i SET topic_id = a.topic_id, partition = a.partition, kafka_offset = a.kafka_offset,
    kafka_timestamp = a.kafka_timestamp, published_at = now(), publish_at = CASE WHEN i.publish_at = a.claimed_until THEN NULL ELSE i.publish_at END
FROM acked a
WHERE i.ctid = a.place

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

-- fragment: is_under_lease
-- A worker has a delivery of item i of batch b in flight.
EXISTS (
    SELECT FROM deliveries d
    WHERE d.event_id = b.event_id AND d.action = b.action AND d.member_id = i.member_id
        AND d.state = 'handing_off' AND d.lease_until > now()
)

-- fragment: is_on_topic
-- The condition of ix_batch_items_published: published, by its receipt, and nothing came of it yet.
i.settled_at IS NULL AND i.publish_at IS NULL AND i.kafka_offset IS NOT NULL

-- fragment: lost_candidates
-- Items whose message the group will never read, by ranges of the index alone: below the group's next offset; beyond the
-- end of the log, which has lost its tail (FM-36); on a partition or topic that is gone (a topic created again has another
-- id). And items of batches that are not paused which are neither due nor were ever on a topic.
-- An offset that lies beyond the end now is reused by later messages, and then looks alive: until the group has committed
-- past it, which makes it a candidate again.
SELECT c.batch_id, c.member_id
FROM jsonb_to_recordset(%(partitions)s) AS p(partition int, next_offset bigint, end_offset bigint)
CROSS JOIN LATERAL (
    SELECT i.batch_id, i.member_id FROM batch_items i
    WHERE {{is_on_topic}} AND i.topic_id = %(topic_id)s AND i.partition = p.partition
        AND i.kafka_offset < p.next_offset
    UNION ALL
    SELECT i.batch_id, i.member_id FROM batch_items i
    WHERE {{is_on_topic}} AND i.topic_id = %(topic_id)s AND i.partition = p.partition
        AND i.kafka_offset >= greatest(p.next_offset, p.end_offset)
) c
UNION ALL
SELECT c.batch_id, c.member_id
FROM jsonb_to_recordset(%(missing_partitions)s) AS g(first int, last int)
CROSS JOIN LATERAL (
    SELECT i.batch_id, i.member_id FROM batch_items i
    WHERE {{is_on_topic}} AND i.topic_id = %(topic_id)s AND i.partition BETWEEN g.first AND g.last OFFSET 0
) c
UNION ALL
SELECT i.batch_id, i.member_id FROM batch_items i WHERE {{is_on_topic}} AND i.topic_id < %(topic_id)s
UNION ALL
SELECT i.batch_id, i.member_id FROM batch_items i WHERE {{is_on_topic}} AND i.topic_id > %(topic_id)s
UNION ALL
SELECT c.batch_id, c.member_id
FROM (
    WITH RECURSIVE resting AS (
        (
            SELECT i.batch_id FROM batch_items i
            WHERE i.settled_at IS NULL AND i.publish_at IS NULL AND i.kafka_offset IS NULL
            ORDER BY i.batch_id LIMIT 1
        )
        UNION ALL
        SELECT n.batch_id
        FROM resting r
        CROSS JOIN LATERAL (
            SELECT i.batch_id FROM batch_items i
            WHERE i.settled_at IS NULL AND i.publish_at IS NULL AND i.kafka_offset IS NULL AND i.batch_id > r.batch_id
            ORDER BY i.batch_id LIMIT 1
        ) n
    )
    SELECT r.batch_id FROM resting r JOIN batches b ON b.id = r.batch_id AND {{may_be_lost}} OFFSET 0
) r
CROSS JOIN LATERAL (
    SELECT i.batch_id, i.member_id FROM batch_items i
    WHERE i.settled_at IS NULL AND i.publish_at IS NULL AND i.kafka_offset IS NULL AND i.batch_id = r.batch_id OFFSET 0
) c

-- fragment: is_lost
-- Whether a candidate, item i of batch b, is lost. `read_at` is a time of this database from before Kafka was asked for
-- the offsets: a receipt is stored after the brokers' acknowledgement, so an item with an older receipt was in the log
-- when its end was read, unless the log has lost it. One with a newer receipt may have an offset beyond that end and be
-- perfectly alive; the next check decides on it. An item that is published again while this statement waits for its row is
-- evaluated again by its new receipt.
i.settled_at IS NULL AND i.publish_at IS NULL AND (i.published_at < %(read_at)s) IS NOT FALSE
    AND NOT {{is_under_lease}} AND NOT {{is_set_aside}}

-- name: make_lost_items_due
-- One chunk. The costly conditions are evaluated for candidates only, until the chunk is full. OFFSET 0 keeps the planner
-- from probing for each item of a paused batch.
WITH lost AS MATERIALIZED (
    SELECT i.batch_id, i.member_id
    FROM (
        SELECT c.batch_id, c.member_id, b.event_id, b.action
        FROM (
            {{lost_candidates}}
        ) c
        JOIN batches b ON b.id = c.batch_id AND {{may_be_lost}} OFFSET 0
    ) b
    CROSS JOIN LATERAL (
        SELECT i.batch_id, i.member_id FROM batch_items i
        WHERE i.batch_id = b.batch_id AND i.member_id = b.member_id AND {{is_lost}}
        FOR UPDATE SKIP LOCKED
    ) i
    LIMIT %(limit)s
)
UPDATE batch_items i SET publish_at = now()
FROM lost WHERE i.batch_id = lost.batch_id AND i.member_id = lost.member_id

-- name: count_backlog
-- `on_topic`: on the topic, ahead of the group's next offset, and not settled: what a message published now has in front
-- of it. Counts what workers hold in memory, because they commit what they have done; and nothing that no worker will ever
-- read. `claimed`: claimed lately for their first publishing: on the topic or about to be, and without a receipt. An older
-- claim is that of a process that died; an item that is published again cannot be told from one that waits for a retry.
WITH RECURSIVE {{due_queues}}
SELECT
    (
        SELECT coalesce(sum(x.n), 0)::bigint
        FROM jsonb_to_recordset(%(partitions)s) AS p(partition int, next_offset bigint, end_offset bigint)
        CROSS JOIN LATERAL (
            SELECT count(*) AS n FROM (
                SELECT FROM batch_items i
                WHERE {{is_on_topic}} AND i.topic_id = %(topic_id)s AND i.partition = p.partition
                    AND i.kafka_offset >= p.next_offset
                LIMIT %(most)s
            ) y
        ) x
    ) AS on_topic,
    (
        SELECT coalesce(sum(x.n), 0)::bigint
        FROM queues q
        CROSS JOIN LATERAL (
            SELECT count(*) AS n FROM (
                SELECT FROM batch_items i
                WHERE i.batch_id = q.batch_id AND (i.kafka_offset IS NOT NULL) = q.again
                    AND i.publish_at > now() + (%(claim_seconds)s - %(receipt_seconds)s) * interval '1 second'
                LIMIT %(most)s
            ) y
        ) x
        WHERE NOT q.again
    ) AS claimed

-- name: any_due
-- Whether a claim would find anything.
WITH RECURSIVE {{due_queues}}
SELECT EXISTS (
    SELECT FROM queues q
    JOIN batches b ON b.id = q.batch_id AND {{may_be_published_now}}
    WHERE q.publish_at <= now()
) AS any

-- name: count_unpublished
SELECT count(*) AS n FROM batch_items WHERE batch_id = %(batch_id)s AND publish_at IS NOT NULL
