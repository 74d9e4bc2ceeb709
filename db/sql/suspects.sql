-- Which messages were being processed when a worker ended. A worker's session holds an advisory lock of the class below
-- with `owner` as its key; a row whose owner's lock is free was left by a worker that has ended. All of it is a
-- suspicion, never a decision about a mail: the tables are not logged, and a crash of the database empties them.

-- fragment: owner_class
hashtext('bidden: owner ' || current_schema())

-- name: hold_owner
SELECT pg_advisory_lock({{owner_class}}, %(owner)s)

-- name: forget_old_polls
-- What ended workers left a day ago, and nobody has read again.
DELETE FROM polls_in_flight
WHERE began_at < now() - interval '1 day' AND pg_try_advisory_xact_lock_shared({{owner_class}}, owner)

-- name: forget_old_suspects
DELETE FROM suspects WHERE seen_at < now() - interval '7 days'

-- name: begin_poll
-- Before a poll is processed, in one statement: what was finished since is removed, this poll is noted, and the ranges
-- of ended workers that it overlaps are returned. Those that lie wholly in it are removed: from now on this poll stands
-- for them. Ranges of workers that live (after a rebalance) are none of its business.
WITH finished AS (
    DELETE FROM polls_in_flight WHERE id = ANY(%(finished)s)
), r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(ranges)s) AS r(partition int, first_offset bigint, last_offset bigint)
), overlapping AS MATERIALIZED (
    SELECT p.id, p.owner, p.partition, p.first_offset, p.last_offset, p.ends, p.last_offset <= r.last_offset AS is_over
    FROM polls_in_flight p
    JOIN r ON r.partition = p.partition AND p.first_offset <= r.last_offset AND p.last_offset >= r.first_offset
    WHERE p.topic = %(topic)s AND p.owner <> %(owner)s
), dead AS MATERIALIZED (
    SELECT * FROM overlapping WHERE pg_try_advisory_xact_lock_shared({{owner_class}}, owner)
), begun AS (
    INSERT INTO polls_in_flight (owner, topic, partition, first_offset, last_offset, ends, began_at)
    SELECT %(owner)s, %(topic)s, partition, first_offset, last_offset,
        coalesce((SELECT max(ends) + 1 FROM dead WHERE dead.partition = r.partition), 0), now()
    FROM r
    RETURNING id
), removed AS (
    DELETE FROM polls_in_flight WHERE id IN (SELECT id FROM dead WHERE is_over)
)
SELECT ARRAY(SELECT id FROM begun) AS ids,
    coalesce(
        (SELECT jsonb_agg(jsonb_build_array(partition, first_offset, last_offset, ends + 1)) FROM dead), '[]'
    ) AS dead

-- name: take_over_suspects
-- What is known of messages at these offsets. One that an ended worker had marked has one end more.
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(ranges)s) AS r(partition int, first_offset bigint, last_offset bigint)
), overlapping AS MATERIALIZED (
    SELECT s.topic, s.partition, s.kafka_offset, s.owner
    FROM suspects s
    JOIN r ON r.partition = s.partition AND s.kafka_offset BETWEEN r.first_offset AND r.last_offset
    WHERE s.topic = %(topic)s AND s.owner IS DISTINCT FROM %(owner)s
), dead AS MATERIALIZED (
    SELECT * FROM overlapping
    WHERE CASE WHEN owner IS NULL THEN true ELSE pg_try_advisory_xact_lock_shared({{owner_class}}, owner) END
)
UPDATE suspects s SET ends = s.ends + (s.owner IS NOT NULL)::int, owner = NULL
FROM dead d
WHERE s.topic = d.topic AND s.partition = d.partition AND s.kafka_offset = d.kafka_offset
RETURNING s.partition, s.kafka_offset, s.timestamp, s.ends

-- name: mark_suspect
-- Before a suspect is processed. The end that made it one counts as its first.
INSERT INTO suspects (topic, partition, kafka_offset, timestamp, ends, owner, seen_at)
VALUES (%(topic)s, %(partition)s, %(offset)s, %(timestamp)s, 1, %(owner)s, now())
ON CONFLICT (topic, partition, kafka_offset) DO UPDATE SET
    owner = excluded.owner, seen_at = excluded.seen_at, timestamp = excluded.timestamp,
    ends = CASE WHEN suspects.timestamp = excluded.timestamp THEN suspects.ends ELSE 1 END

-- name: release_suspect
-- It waits for something else than itself: an end now is not its fault. What was counted stays.
UPDATE suspects SET owner = NULL
WHERE topic = %(topic)s AND partition = %(partition)s AND kafka_offset = %(offset)s AND owner = %(owner)s

-- name: clear_suspect
DELETE FROM suspects
WHERE topic = %(topic)s AND partition = %(partition)s AND kafka_offset = %(offset)s
    AND coalesce(owner, %(owner)s) = %(owner)s

-- name: leave_suspects
UPDATE suspects SET owner = NULL WHERE owner = %(owner)s

-- name: leave_polls
DELETE FROM polls_in_flight WHERE owner = %(owner)s

-- name: rename_polls
-- After a lost connection: the new session has a key of its own.
UPDATE polls_in_flight SET owner = %(owner)s WHERE owner = %(before)s

-- name: rename_suspects
UPDATE suspects SET owner = %(owner)s WHERE owner = %(before)s
