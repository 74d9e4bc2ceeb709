-- The audit log. An entry is written before its action and completed after it: no action that has begun is missing.

-- name: begin_audit_entry
INSERT INTO audit_log (at, actor, action, event_id, batch_id, member_id, detail)
VALUES (now(), %(actor)s, %(action)s, %(event_id)s, %(batch_id)s, %(member_id)s, %(detail)s)
RETURNING id

-- name: complete_audit_entry
UPDATE audit_log SET outcome = %(outcome)s, batch_id = coalesce(%(batch_id)s, batch_id),
    detail = coalesce(%(detail)s, detail)
WHERE id = %(id)s

-- name: audit_entries
SELECT t.id, t.at, t.actor, t.action, t.event_id, e.ref AS event_ref, t.batch_id, t.member_id, t.detail, t.outcome
FROM audit_log t LEFT JOIN events e ON e.id = t.event_id
WHERE (%(before)s::bigint IS NULL OR t.id < %(before)s) AND (%(event_id)s::bigint IS NULL OR t.event_id = %(event_id)s)
ORDER BY t.id DESC LIMIT %(limit)s
