-- The record fallback (FM-07): one delivery at a time, from constants and the rows' own keys, so that nothing here can be
-- invalid. `fence` is that of the claim, or null for a delivery that could not be claimed.

-- name: fallback_delivery
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

-- name: fallback_item
-- Logs what the ledger has, and settles the item unless its other slot is still open.
WITH entries AS MATERIALIZED (
    SELECT %(batch_id)s::bigint AS batch_id, %(member_id)s::bigint AS member_id, %(slot)s::text AS slot,
        d.role, d.attempts, now() AS at, %(partition)s::int AS partition, %(kafka_offset)s::bigint AS kafka_offset,
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
    {{insert_log_entries}}
)
UPDATE batch_items SET settled_at = coalesce(settled_at, now()), publish_at = NULL
WHERE batch_id = %(batch_id)s AND member_id = %(member_id)s AND excluded IS NULL AND EXISTS (SELECT FROM entries)
    AND cardinality(roles) <= 1 + (
        SELECT count(*) FROM log_entries
        WHERE batch_id = %(batch_id)s AND member_id = %(member_id)s AND slot <> %(slot)s AND status <> 'retry'
    )

-- name: fallback_first_error
UPDATE batches SET first_error = %(reason)s WHERE id = %(batch_id)s AND first_error IS NULL
