-- Recording what could not be recorded (FM-07). One delivery at a time, from constants and the rows' own keys: nothing
-- here can be invalid. `fence` is that of the mark, or null for a delivery that could not even be marked.

-- name: salvage_delivery
UPDATE deliveries SET
    state = CASE WHEN %(fence)s::bigint IS NULL AND state = 'handing_off' THEN 'unknown' ELSE %(state)s::text END,
    reason = %(reason)s, reply = NULL, attempts = CASE state WHEN 'handing_off' THEN attempts + 1 ELSE attempts END,
    batch_id = %(batch_id)s, not_before = NULL, lease_until = NULL, owner = NULL, updated_at = now()
WHERE event_id = %(event_id)s AND action = %(action)s AND member_id = %(member_id)s AND slot = %(slot)s
    AND CASE
        WHEN %(fence)s::bigint IS NULL THEN
            state IN ('planned', 'retry', 'skipped') OR (state = 'handing_off' AND lease_until < now())
        ELSE fence = %(fence)s AND state IN ('handing_off', 'unknown')
    END

-- name: salvage_item
-- The log as the ledger has it, and the item settled unless its other slot has yet to be.
WITH told AS MATERIALIZED (
    SELECT d.role, d.attempts,
        CASE WHEN d.state = 'sent' AND d.batch_id IS DISTINCT FROM %(batch_id)s THEN 'skipped' ELSE d.state END AS status,
        CASE
            WHEN d.state = 'sent' AND d.batch_id IS DISTINCT FROM %(batch_id)s THEN 'already_sent'
            WHEN d.state <> 'sent' AND d.reason = %(cause)s THEN %(reason)s
            WHEN d.state <> 'sent' THEN d.reason
        END AS reason
    FROM deliveries d
    WHERE d.event_id = %(event_id)s AND d.action = %(action)s AND d.member_id = %(member_id)s AND d.slot = %(slot)s
        AND d.state IN ('sent', 'failed', 'unknown', 'skipped')
), logged AS (
    INSERT INTO log_entries
        (batch_id, member_id, slot, role, status, reason, attempts, at, partition, kafka_offset)
    SELECT %(batch_id)s, %(member_id)s, %(slot)s, role, status, reason, attempts, now(), %(partition)s, %(kafka_offset)s
    FROM told
    ON CONFLICT (batch_id, member_id, slot) DO UPDATE SET role = excluded.role, status = excluded.status,
        reason = excluded.reason, attempts = excluded.attempts, at = excluded.at,
        partition = excluded.partition, kafka_offset = excluded.kafka_offset
)
UPDATE batch_items SET settled_at = coalesce(settled_at, now()), publish_at = NULL
WHERE batch_id = %(batch_id)s AND member_id = %(member_id)s AND excluded IS NULL AND EXISTS (SELECT FROM told)
    AND cardinality(roles) <= 1 + (
        SELECT count(*) FROM log_entries
        WHERE batch_id = %(batch_id)s AND member_id = %(member_id)s AND slot <> %(slot)s AND status <> 'retry'
    )

-- name: salvage_first_error
UPDATE batches SET first_error = %(reason)s WHERE id = %(batch_id)s AND first_error IS NULL
