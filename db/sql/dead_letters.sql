-- What operators did with dead letters. A letter is named by its topic's id, its partition and its offset: a topic made
-- again begins at offset 0.

-- name: handled_dead_letters
SELECT partition, kafka_offset, redriven_at, discarded_at
FROM redriven_dead_letters FULL JOIN discarded_dead_letters USING (topic_id, partition, kafka_offset)
WHERE topic_id = %(topic_id)s

-- name: record_redriven
-- The latest time counts.
INSERT INTO redriven_dead_letters (topic_id, partition, kafka_offset, redriven_at)
SELECT %(topic_id)s, r.partition, r.kafka_offset, now()
FROM jsonb_to_recordset(%(places)s) AS r(partition int, kafka_offset bigint)
ORDER BY r.partition, r.kafka_offset
ON CONFLICT (topic_id, partition, kafka_offset) DO UPDATE SET redriven_at = excluded.redriven_at

-- name: record_discarded
-- The first time counts.
INSERT INTO discarded_dead_letters (topic_id, partition, kafka_offset, discarded_at)
SELECT %(topic_id)s, r.partition, r.kafka_offset, now()
FROM jsonb_to_recordset(%(places)s) AS r(partition int, kafka_offset bigint)
ORDER BY r.partition, r.kafka_offset
ON CONFLICT (topic_id, partition, kafka_offset) DO NOTHING
