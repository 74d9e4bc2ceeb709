-- The hot path of a worker: the statements that `run_cycle` (ledger_cycle.sql) runs in one transaction. All take their
-- rows as one JSON array. Times are the database's: one clock for all workers.
--
-- Parameters: `owner` names one cycle of one worker, not the worker; `resend_below` is the number of attempts below which an `unknown`
-- delivery may be claimed again (0 under the policy `hold`: never).
--
-- Why LATERAL and OFFSET 0: each row must probe each table by its whole key. Joined plainly, the planner may take one
-- column of a key from one table and the rest from another, and then scans a whole batch for every row; with statistics
-- that are a minute old it does.

-- name: lock_batches
-- Held to the end of the transaction: the first chunk of a pause or cancel locks the row FOR UPDATE and waits for those
-- that may have read the state before it.
SELECT id FROM batches WHERE id = ANY(%(batches)s) ORDER BY id FOR KEY SHARE

-- name: look_up
-- Of each message that has something left to do: whom it names, and what. No lock, no decision; what its mail says is read
-- by its claim. What is settled is left out before anything else is read: a replay of a settled topic runs on that alone.
-- A batch whose items were removed by `cleanup` had settled them all.
SELECT t.n, t.batch_event_id, e.id IS NOT NULL AS event_known, m.id IS NOT NULL AS member_known, t.paused, t.roles,
    m.email, e.role_policy
FROM (
    SELECT t.*, b.event_id AS batch_event_id, b.state = 'paused' AS paused, i.roles
    FROM jsonb_to_recordset(%(messages)s) AS t(n int, batch_id bigint, event_id bigint, member_id bigint)
    LEFT JOIN batches b ON b.id = t.batch_id
    LEFT JOIN LATERAL (
        SELECT roles, settled_at, excluded FROM batch_items
        WHERE batch_id = t.batch_id AND member_id = t.member_id OFFSET 0
    ) i ON true
    WHERE (b.event_id = t.event_id AND ((i.settled_at IS NOT NULL AND i.excluded IS NULL) OR b.archived IS NOT NULL))
        IS NOT TRUE
    OFFSET 0
) t
LEFT JOIN events e ON e.id = t.event_id
LEFT JOIN members m ON m.id = t.member_id

-- name: event_details
SELECT e.id AS event_id, e.kind, e.name, e.description, e.starts_at, e.ends_at,
    coalesce(e.time_zone, c.zones[1]) AS time_zone, e.host_name, e.host_address, e.role_policy, e.rsvp_url,
    c.names AS chapter_names, c.emails[1] AS chapter_email
FROM events e
CROSS JOIN LATERAL (
    SELECT array_agg(chapters.name ORDER BY position) AS names,
        array_agg(chapters.email ORDER BY position) AS emails,
        array_agg(chapters.time_zone ORDER BY position) AS zones
    FROM event_chapters JOIN chapters ON chapters.id = chapter_id WHERE event_id = e.id
) c
WHERE e.id = ANY(%(events)s)

-- name: settle_accepted
-- The usual end, in one statement: accepted by the mail server, under the fence of a claim that this batch still holds,
-- and nothing else open for the member. Ledger, log and item change together (FM-17). Returns, as one JSON array, the
-- members whose items are settled. Of the others, what the fence allowed is in ledger and log as well; `record_outcomes`
-- and `settle_items` look at them again. By ctid: a row that has moved since this statement began is theirs, too.
WITH found AS MATERIALIZED (
    SELECT r.*, d.place
    FROM jsonb_to_recordset(%(accepted)s) AS r(batch_id bigint, event_id bigint, action text, member_id bigint,
        slot text, fence bigint, reply text, partition int, kafka_offset bigint)
    CROSS JOIN LATERAL (
        SELECT ctid AS place FROM deliveries
        WHERE event_id = r.event_id AND action = r.action AND member_id = r.member_id AND slot = r.slot OFFSET 0
    ) d
), recorded AS MATERIALIZED (
    UPDATE deliveries d SET state = 'sent', reason = NULL, reply = coalesce(r.reply, d.reply),
        attempts = d.attempts + 1, not_before = NULL, first_refused_at = NULL, lease_until = NULL, owner = NULL,
        updated_at = now()
    FROM found r
    WHERE d.ctid = r.place AND d.state = 'handing_off' AND d.fence = r.fence AND d.batch_id = r.batch_id
        AND d.event_id = r.event_id AND d.action = r.action AND d.member_id = r.member_id AND d.slot = r.slot
    RETURNING d.batch_id, d.member_id, d.slot, d.role, 'sent' AS status, d.reason, d.attempts, d.updated_at AS at,
        r.partition, r.kafka_offset
), entries AS (
    SELECT * FROM recorded
), logged AS (
    {{insert_log_entries}}
), ended AS MATERIALIZED (
    SELECT t.*, i.place
    FROM (
        SELECT batch_id, member_id, count(*) AS slots FROM recorded GROUP BY batch_id, member_id
        -- The order in which items are locked: see `settle_items`.
        ORDER BY batch_id, member_id
    ) t
    CROSS JOIN LATERAL (
        SELECT ctid AS place FROM batch_items WHERE batch_id = t.batch_id AND member_id = t.member_id OFFSET 0
    ) i
), settled AS (
    UPDATE batch_items i SET settled_at = now(), publish_at = NULL
    FROM ended t
    WHERE i.ctid = t.place AND i.batch_id = t.batch_id AND i.member_id = t.member_id AND i.excluded IS NULL
        AND i.settled_at IS NULL AND cardinality(i.roles) = t.slots
    RETURNING i.batch_id, i.member_id
)
SELECT jsonb_agg(jsonb_build_object('batch_id', batch_id, 'member_id', member_id)) AS members FROM settled

-- name: record_outcomes
-- Writes an outcome only under the fence of its own claim: an older claim changes nothing. A late outcome replaces
-- `unknown` and the attempt that it had used. A retry whose batch was cancelled meanwhile becomes skipped.
UPDATE deliveries d SET
    state = CASE WHEN r.state = 'retry' AND b.state = 'cancelled' THEN 'skipped' ELSE r.state END,
    reason = CASE WHEN r.state = 'retry' AND b.state = 'cancelled' THEN 'batch_cancelled' ELSE r.reason END,
    reply = coalesce(r.reply, d.reply),
    attempts = CASE d.state WHEN 'unknown' THEN greatest(d.attempts - 1, 0) ELSE d.attempts END + r.uses,
    not_before = CASE WHEN r.state = 'retry' THEN now() + r.delay * interval '1 second' END,
    first_refused_at = CASE WHEN r.state = 'sent' THEN NULL WHEN r.refused THEN coalesce(d.first_refused_at, now())
        ELSE d.first_refused_at END,
    lease_until = NULL, owner = NULL, updated_at = now()
FROM jsonb_to_recordset(%(recorded)s) AS r(batch_id bigint, event_id bigint, action text, member_id bigint,
    slot text, fence bigint, state text, reason text, reply text, uses int, delay float8,
    refused bool)
JOIN batches b ON b.id = r.batch_id
WHERE d.event_id = r.event_id AND d.action = r.action AND d.member_id = r.member_id AND d.slot = r.slot
    AND d.fence = r.fence AND d.state IN ('handing_off', 'unknown')

-- name: keep_first_error
-- The first failure of each batch among those that `record_outcomes` has just written. `n` is the order in which they completed.
UPDATE batches b SET first_error = f.reason
FROM (
    SELECT DISTINCT ON (r.batch_id) r.batch_id, r.reason
    FROM jsonb_to_recordset(%(failures)s) AS r(n int, batch_id bigint, event_id bigint, action text,
        member_id bigint, slot text, fence bigint, reason text)
    JOIN deliveries d ON d.event_id = r.event_id AND d.action = r.action AND d.member_id = r.member_id
        AND d.slot = r.slot AND d.fence = r.fence AND d.state = 'failed'
    ORDER BY r.batch_id, r.n
) f
WHERE b.id = f.batch_id AND b.first_error IS NULL

-- name: claim_deliveries
-- The claim, committed before the mail's data goes out: what makes sure that two workers never mail the same key. Takes
-- a delivery only if its batch runs, its item is open, its member is still eligible, no other worker has it in flight,
-- and it was not sent and is no retry before its time. SKIP LOCKED:
-- never waits, so two workers cannot deadlock; a key that another session has locked, or whose row has moved since this
-- statement began, is not claimed, and `settle_items` makes its item due again. Members with one mailbox are claimed one at
-- a time (`mailbox_is_free`). A claim whose commit was never acknowledged is taken again by its own owner: nothing was
-- sent under it. Returns one JSON array of arrays, with what the mail says of its member, too: who is mailed where is
-- what the directory says now.
WITH eligible AS MATERIALIZED (
    SELECT w.*, m.name, m.surname, m.email, m.mailbox, m.shares_mailbox
    FROM jsonb_to_recordset(%(requested)s) AS w(batch_id bigint, event_id bigint, action text, member_id bigint,
        slot text, role text)
    JOIN batches b ON b.id = w.batch_id
    JOIN events e ON e.id = w.event_id
    JOIN members m ON m.id = w.member_id
    CROSS JOIN LATERAL (
        SELECT settled_at FROM batch_items WHERE batch_id = w.batch_id AND member_id = w.member_id OFFSET 0
    ) i
    WHERE b.state = 'running' AND b.needs_placing IS NOT TRUE AND i.settled_at IS NULL AND NOT {{is_not_in_source}}
        AND {{ineligibility_reason_at_claim}} IS NULL
), claimable AS MATERIALIZED (
    SELECT w.*, d.place
    FROM eligible w
    CROSS JOIN LATERAL (
        SELECT d.ctid AS place FROM deliveries d
        WHERE d.event_id = w.event_id AND d.action = w.action AND d.member_id = w.member_id AND d.slot = w.slot
            AND (
                d.state = 'planned'
                OR (d.state = 'retry' AND d.not_before <= now())
                OR (d.state = 'skipped' AND d.batch_id IS DISTINCT FROM w.batch_id)
                OR (d.state = 'handing_off' AND d.owner = %(owner)s)
                OR (d.state = 'unknown' AND d.attempts < %(resend_below)s)
                OR (d.state = 'handing_off' AND d.lease_until < now() AND d.attempts + 1 < %(resend_below)s)
            )
        FOR UPDATE SKIP LOCKED
    ) d
    WHERE NOT w.shares_mailbox OR {{mailbox_is_free}}
), claimed AS (
    UPDATE deliveries d SET state = 'handing_off', fence = d.fence + 1, owner = %(owner)s,
        lease_until = now() + %(lease)s * interval '1 second', role = t.role, batch_id = t.batch_id,
        attempts = d.attempts + CASE WHEN d.state = 'handing_off' AND d.owner <> %(owner)s THEN 1 ELSE 0 END,
        reason = NULL, reply = NULL, not_before = NULL, updated_at = now()
    FROM claimable t
    WHERE d.ctid = t.place
    RETURNING d.event_id, d.action, d.member_id, d.slot, d.fence, d.attempts,
        extract(epoch FROM now() - d.first_refused_at)::float8 AS refused_for, t.name, t.surname, t.email,
        (SELECT v.token FROM invitations v
         WHERE v.event_id = t.event_id AND v.member_id = t.member_id AND v.role = t.role) AS token
)
SELECT jsonb_agg(jsonb_build_array(event_id, action, member_id, slot, fence, attempts, refused_for, name, surname, email,
    token)) AS claims
FROM claimed

-- fragment: never
false

-- fragment: is_not_in_source
-- The source gets the invitations of batch b, and has not that of w (event_id, member_id, role): its link leads nowhere.
(b.needs_placing IS NOT NULL AND NOT EXISTS (
    SELECT FROM invitations v WHERE v.event_id = w.event_id AND v.member_id = w.member_id AND v.role = w.role
        AND v.placement IN ('ours', 'theirs')
))

-- fragment: mailbox_is_free
-- For the claim w of a member who shares their mailbox: nobody else of that mailbox is claimed for this event now, nor
-- can be before this transaction ends. All their deliveries are locked, and looked at as they are then: of two workers
-- one does not get the locks, of two in one transaction the lower id is claimed (ADR 31).
(NOT EXISTS (
    SELECT FROM eligible o WHERE o.event_id = w.event_id AND o.action = w.action AND o.mailbox = w.mailbox
        AND o.member_id < w.member_id
) AND (
    SELECT count(*) FROM same_person p
    JOIN deliveries x ON x.event_id = w.event_id AND x.action = w.action AND x.member_id = p.other_id
    WHERE p.member_id = w.member_id
) = (
    SELECT count(*) FROM (
        SELECT FROM deliveries x
        WHERE x.event_id = w.event_id AND x.action = w.action
            AND x.member_id = ANY(ARRAY(SELECT p.other_id FROM same_person p WHERE p.member_id = w.member_id))
            AND x.state NOT IN ('handing_off', 'sent', 'unknown')
        FOR UPDATE SKIP LOCKED
    ) free
))

-- name: read_mails
-- What claims would return of their members, without a claim.
SELECT w.n, m.name, m.surname, m.email,
    (SELECT v.token FROM invitations v
     WHERE v.event_id = w.event_id AND v.member_id = w.member_id AND v.role = w.role) AS token
FROM jsonb_to_recordset(%(requested)s) AS w(n int, event_id bigint, member_id bigint, role text)
JOIN members m ON m.id = w.member_id

-- name: event_versions
-- Another text whenever what `event_details` says of the event may be another: the writes that its rows are of.
SELECT e.id AS event_id, concat_ws(' ', e.xmin, e.ctid, c.versions) AS version
FROM events e
CROSS JOIN LATERAL (
    SELECT string_agg(concat_ws(' ', l.xmin, l.ctid, c.xmin, c.ctid), ' ' ORDER BY l.position) AS versions
    FROM event_chapters l JOIN chapters c ON c.id = l.chapter_id WHERE l.event_id = e.id
) c
WHERE e.id = ANY(%(events)s)

-- name: conclude_unclaimed
-- Of what was requested and not claimed: a member who is no longer eligible is skipped with the reason, and a delivery
-- whose lease ended without an outcome becomes `unknown`. If this cycle owns the row already, an
-- earlier try of this transaction was committed and its answer lost: nothing was sent under it, so it is given back.
WITH open AS MATERIALIZED (
    SELECT w.*, b.state = 'running' AND b.needs_placing IS NOT TRUE AS running, {{is_not_in_source}} AS not_in_source
    FROM jsonb_to_recordset(%(requested)s) AS w(batch_id bigint, event_id bigint, action text, member_id bigint,
        slot text, role text)
    JOIN batches b ON b.id = w.batch_id
    CROSS JOIN LATERAL (
        SELECT state, lease_until, owner FROM deliveries
        WHERE event_id = w.event_id AND action = w.action AND member_id = w.member_id AND slot = w.slot OFFSET 0
    ) d
    WHERE d.state IN ('planned', 'retry', 'skipped')
        OR (d.state = 'handing_off' AND (d.lease_until < now() OR d.owner = %(owner)s))
), evaluated AS MATERIALIZED (
    SELECT w.*, coalesce({{ineligibility_reason_at_claim}}, CASE WHEN w.not_in_source THEN 'not_in_source' END) AS ineligible
    FROM open w
    JOIN events e ON e.id = w.event_id
    JOIN members m ON m.id = w.member_id
), concluded AS MATERIALIZED (
    SELECT w.*, CASE
        WHEN d.state = 'handing_off' AND d.owner <> %(owner)s THEN 'unknown'
        -- Under `resend` the claim may have been taken from `unknown`: giving it back restores that.
        WHEN d.state = 'handing_off' AND d.attempts > 0 AND %(resend_below)s > 0 THEN 'unknown'
        WHEN w.running AND w.ineligible IS NOT NULL THEN 'skipped'
        ELSE 'planned'
    END AS state, d.state = 'handing_off' AND d.owner <> %(owner)s AS stopped
    FROM evaluated w
    CROSS JOIN LATERAL (
        SELECT d.state, d.owner, d.attempts FROM deliveries d
        WHERE d.event_id = w.event_id AND d.action = w.action AND d.member_id = w.member_id AND d.slot = w.slot
            AND ((d.state = 'handing_off' AND (d.lease_until < now() OR d.owner = %(owner)s))
                OR (d.state IN ('planned', 'retry', 'skipped') AND w.running AND w.ineligible IS NOT NULL))
        FOR UPDATE SKIP LOCKED
    ) d
)
UPDATE deliveries d SET
    state = f.state,
    reason = CASE f.state WHEN 'unknown' THEN 'its worker stopped while sending' WHEN 'skipped' THEN f.ineligible END,
    attempts = d.attempts + CASE WHEN f.stopped THEN 1 ELSE 0 END,
    batch_id = CASE WHEN f.stopped THEN d.batch_id ELSE f.batch_id END,
    -- What a dead worker left keeps its name: its journal may tell more (`claims_left`).
    owner = CASE WHEN f.stopped THEN d.owner END, lease_until = NULL, not_before = NULL, updated_at = now()
FROM concluded f
WHERE d.event_id = f.event_id AND d.action = f.action AND d.member_id = f.member_id AND d.slot = f.slot

-- name: lock_unknown
-- What is about to be logged as unknown stays so until the commit: a late outcome waits, and then finds this log entry
-- to correct. Few rows, so the wait is short.
SELECT FROM jsonb_to_recordset(%(touched)s) AS w(event_id bigint, action text, member_id bigint, slot text)
CROSS JOIN LATERAL (
    SELECT FROM deliveries
    WHERE event_id = w.event_id AND action = w.action AND member_id = w.member_id AND slot = w.slot
        AND state = 'unknown'
    FOR SHARE
) d

-- fragment: may_be_resent
-- Whether the unknown delivery d will be claimed again: policy, attempts and eligibility allow it.
(d.attempts < %(resend_below)s AND (
    SELECT {{ineligibility_reason_at_claim}} IS NULL AND NOT {{is_not_in_source}}
    FROM events e, members m, (SELECT d.event_id, d.member_id, d.role) w
    WHERE e.id = d.event_id AND m.id = d.member_id
))

-- fragment: final_status
-- What the ledger's row d means for the log of batch b: null while it is pending.
CASE
    WHEN d.state = 'sent' AND d.batch_id = b.id THEN 'sent'
    WHEN d.state = 'sent' THEN 'skipped'
    WHEN d.state = 'failed' THEN 'failed'
    -- Skipped by another batch: this one has yet to ask for itself whether the member is eligible.
    WHEN d.state = 'skipped' AND d.batch_id = b.id THEN 'skipped'
    WHEN d.state = 'unknown' AND NOT {{may_be_resent}} THEN 'unknown'
    WHEN b.state = 'cancelled' AND NOT (d.state = 'handing_off' AND d.batch_id = b.id) THEN
        CASE d.state WHEN 'unknown' THEN 'unknown' ELSE 'skipped' END
END

-- fragment: final_reason
CASE
    WHEN d.state = 'sent' AND d.batch_id IS DISTINCT FROM b.id THEN 'already_sent'
    WHEN d.state IN ('sent', 'failed', 'skipped', 'unknown') THEN d.reason
    WHEN b.state = 'cancelled' THEN 'batch_cancelled'
    ELSE d.reason
END

-- fragment: insert_log_entries
-- The one place that writes log entries, from the CTE `entries`; the latest outcome wins (FM-05). A new column of the log
-- is added here, and every statement that has the CTE must select it.
INSERT INTO log_entries (batch_id, member_id, slot, role, status, reason, attempts, at, partition, kafka_offset)
SELECT batch_id, member_id, slot, role, status, reason, attempts, at, partition, kafka_offset
FROM entries
ORDER BY batch_id, member_id, slot
ON CONFLICT (batch_id, member_id, slot) DO UPDATE SET role = excluded.role, status = excluded.status,
    reason = excluded.reason, attempts = excluded.attempts, at = excluded.at,
    partition = excluded.partition, kafka_offset = excluded.kafka_offset

-- name: settle_items
-- For keys that were recorded or not claimed: writes what the ledger now says to the batch's log, and settles the item or
-- makes it due again, in one statement (FM-17), so that log and ledger cannot disagree. A log entry exists for what is
-- settled and for what waits for a retry.
WITH evaluated AS MATERIALIZED (
    SELECT t.batch_id, t.member_id, t.slot, t.partition, t.kafka_offset, d.role, d.state,
        CASE WHEN d.state = 'sent' AND d.batch_id IS DISTINCT FROM b.id THEN 0 ELSE d.attempts END AS attempts,
        {{final_status}} AS final_status, {{final_reason}} AS reason,
        CASE WHEN d.state = 'sent' AND d.batch_id = b.id THEN d.updated_at ELSE now() END AS at,
        CASE d.state
            -- The lease ended but its row is locked: its worker stopped in mid-transaction, and the lock will end, too.
            WHEN 'handing_off' THEN greatest(d.lease_until, now() + interval '1 second')
            WHEN 'retry' THEN d.not_before
            WHEN 'unknown' THEN now() + %(retry_base)s * interval '1 second'
            ELSE now() + interval '1 second'
        END AS due
    FROM jsonb_to_recordset(%(touched)s) AS t(batch_id bigint, event_id bigint, action text, member_id bigint,
        slot text, partition int, kafka_offset bigint)
    JOIN batches b ON b.id = t.batch_id
    JOIN deliveries d ON d.event_id = t.event_id AND d.action = t.action AND d.member_id = t.member_id
        AND d.slot = t.slot
), entries AS (
    SELECT batch_id, member_id, slot, role, coalesce(final_status, state) AS status, reason, attempts, at, partition,
        kafka_offset
    FROM evaluated WHERE final_status IS NOT NULL OR state IN ('retry', 'unknown')
), logged AS (
    {{insert_log_entries}}
), touched AS MATERIALIZED (
    SELECT batch_id, member_id, array_agg(slot) AS slots, count(final_status) AS final_slots,
        min(due) FILTER (WHERE final_status IS NULL) AS due
    FROM evaluated GROUP BY batch_id, member_id
    -- The order in which items are locked: two workers that settle the same ones wait for each other, but not in a circle.
    ORDER BY batch_id, member_id
)
UPDATE batch_items i SET
    settled_at = CASE WHEN t.final_slots + o.final_slots >= cardinality(i.roles) THEN coalesce(i.settled_at, now()) END,
    publish_at = CASE WHEN t.final_slots + o.final_slots < cardinality(i.roles)
        THEN coalesce(least(t.due, o.due), i.publish_at) END
FROM touched t
CROSS JOIN LATERAL (
    -- The member's other slot, if this batch has logged it.
    SELECT count(*) FILTER (WHERE l.status <> 'retry' AND {{final_status}} IS NOT NULL) AS final_slots,
        min(d.not_before) FILTER (WHERE d.state = 'retry') AS due
    FROM log_entries l
    JOIN batches b ON b.id = l.batch_id
    JOIN deliveries d ON d.event_id = b.event_id AND d.action = b.action AND d.member_id = l.member_id
        AND d.slot = l.slot
    WHERE l.batch_id = t.batch_id AND l.member_id = t.member_id AND l.slot <> ALL (t.slots)
) o
WHERE i.batch_id = t.batch_id AND i.member_id = t.member_id AND i.excluded IS NULL

-- name: correct_log_entries
-- A late outcome also corrects every other log that calls the delivery unknown. So does an outcome of the next claim,
-- where the late one was a retry.
WITH outdated AS MATERIALIZED (
    SELECT t.*, u.batch_id
    FROM jsonb_to_recordset(%(touched)s) AS t(event_id bigint, action text, member_id bigint, slot text)
    CROSS JOIN LATERAL (
        SELECT l.batch_id FROM log_entries l
        WHERE l.member_id = t.member_id AND l.status = 'unknown' AND l.slot = t.slot OFFSET 0
    ) u
    -- Evaluated once and first: where nothing is unknown, which is nearly always, nothing else runs.
    WHERE EXISTS (SELECT FROM log_entries WHERE status = 'unknown')
)
UPDATE log_entries l SET status = coalesce({{final_status}}, d.state), reason = {{final_reason}}, attempts = d.attempts,
    at = now()
FROM outdated t, batches b, deliveries d
WHERE b.id = t.batch_id AND b.event_id = t.event_id AND b.action = t.action
    AND l.batch_id = t.batch_id AND l.member_id = t.member_id AND l.slot = t.slot
    AND d.event_id = t.event_id AND d.action = t.action AND d.member_id = t.member_id AND d.slot = t.slot
    AND d.state IN ('sent', 'failed', 'skipped')

-- name: renew_leases
-- So that only the lease of a dead or stopped worker ends. What is not returned is not its worker's any more, and may
-- not be sent: another worker, or an operator, has decided about it.
UPDATE deliveries d SET lease_until = now() + %(lease)s * interval '1 second'
FROM jsonb_to_recordset(%(renewed)s) AS r(event_id bigint, action text, member_id bigint, slot text, fence bigint)
WHERE d.event_id = r.event_id AND d.action = r.action AND d.member_id = r.member_id AND d.slot = r.slot
    AND d.fence = r.fence AND d.state = 'handing_off'
RETURNING d.event_id, d.action, d.member_id, d.slot

-- name: claims_left
-- Of the claims that a dead worker's journal notes, those whose outcome the ledger does not know, and their fences. One that
-- was noted and never committed may be another worker's: the ledger must name the cycle that noted it.
SELECT n.n, d.fence
FROM jsonb_to_recordset(%(noted)s) AS n(n int, event_id bigint, action text, member_id bigint, slot text, owner text)
CROSS JOIN LATERAL (
    SELECT state, fence, owner FROM deliveries
    WHERE event_id = n.event_id AND action = n.action AND member_id = n.member_id AND slot = n.slot OFFSET 0
) d
WHERE d.state IN ('handing_off', 'unknown') AND d.owner = n.owner
