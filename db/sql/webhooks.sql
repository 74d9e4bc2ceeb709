-- Notifications of clients' webhooks of the end of their batches.

-- name: request_webhook
INSERT INTO batch_webhooks (batch_id, client_id, due_at) VALUES (%(batch_id)s, %(client_id)s, now())

-- name: claim_webhooks
-- The number of a batch comes again after the restore of a backup; together with its random seed it does not.
-- A batch, cancelled or not, has ended when all its items are settled: deliveries that were in flight have outcomes then.
WITH due AS (
    SELECT w.batch_id FROM batch_webhooks w
    WHERE w.due_at <= now()
        AND NOT EXISTS (SELECT FROM batch_items u WHERE u.batch_id = w.batch_id AND u.settled_at IS NULL)
        AND NOT EXISTS (SELECT FROM batches b WHERE b.id = w.batch_id AND b.planning IS NOT NULL)
    ORDER BY w.due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE batch_webhooks w SET due_at = now() + %(seconds)s * interval '1 second', attempts = w.attempts + 1
FROM due, api_clients k, accounts a, batches b
WHERE w.batch_id = due.batch_id AND k.id = w.client_id AND a.id = k.account_id AND b.id = w.batch_id
RETURNING 'batch-' || w.batch_id || '-' || to_hex(b.shuffle_seed) AS message_id, w.batch_id, w.client_id, w.attempts,
    {{trace_of_batch}} AS traceparent,
    k.webhook_url, k.webhook_secret, {{client_is_active}} AND a.disabled_at IS NULL AS is_active, {{account_columns}}

-- name: record_webhook_delivery
UPDATE batch_webhooks SET due_at = NULL, delivered_at = now(), last_error = NULL WHERE batch_id = %(batch_id)s

-- name: record_webhook_failure
-- A claim may expire while a process is suspended, so that two processes send: if either succeeded, it is delivered.
UPDATE batch_webhooks SET due_at = now() + %(seconds)s::float8 * interval '1 second', last_error = %(error)s
WHERE batch_id = %(batch_id)s AND delivered_at IS NULL

-- name: webhook_status
SELECT batch_id, attempts, due_at, delivered_at, last_error,
    CASE
        WHEN delivered_at IS NOT NULL THEN 'delivered'
        WHEN due_at IS NULL THEN 'given up'
        WHEN attempts > 0 THEN 'retrying'
        ELSE 'waiting'
    END AS state
FROM batch_webhooks WHERE batch_id = %(batch_id)s AND client_id = %(client_id)s
