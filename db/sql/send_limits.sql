-- The sending rates. A worker grants itself mails in one short transaction: add_send_limits, lock_send_limits (always in
-- the order of scopes, so that two workers wait for each other but not in a circle), read_send_limits, then what
-- `streams.rate_limits` decided is written. It takes no other locks. Times are the database's clock as it runs
-- (clock_timestamp): the transaction may have waited for the rows. `seconds` 0 counts accepted mails per second.

-- name: add_send_limits
INSERT INTO send_limits (scope, updated_at)
SELECT scope, now() FROM unnest(%(scopes)s::text[]) AS s(scope) ORDER BY scope
ON CONFLICT (scope) DO NOTHING

-- name: lock_send_limits
SELECT FROM send_limits WHERE scope = ANY(%(scopes)s) ORDER BY scope FOR UPDATE

-- fragment: send_limit_columns
l.scope, extract(epoch FROM l.paced_to)::float8 AS paced_to, l.recent,
extract(epoch FROM l.queued_to)::float8 AS queued_to, l.warmup,
extract(epoch FROM l.warmup_started)::float8 AS warmup_started, l.ceiling, l.clean_seconds,
extract(epoch FROM l.grown_at)::float8 AS grown_at, l.pause_seconds,
extract(epoch FROM l.paused_until)::float8 AS paused_until,
extract(epoch FROM l.probe_until)::float8 AS probe_until,
extract(epoch FROM l.throttled_at)::float8 AS throttled_at, l.reply

-- fragment: usage_of_scope
-- Of the scope l: [[seconds of the window, the bucket's begin, mails], …].
(SELECT jsonb_agg(jsonb_build_array(u.seconds, extract(epoch FROM u.bucket), u.mails))
 FROM send_usage u WHERE u.scope = l.scope AND u.seconds > 0) AS usage

-- name: read_send_limits
-- A statement of its own, after the lock: it sees what the one before has committed.
SELECT {{send_limit_columns}}, {{usage_of_scope}}, extract(epoch FROM clock_timestamp())::float8 AS now
FROM send_limits l WHERE l.scope = ANY(%(scopes)s)

-- name: accepted_lately
-- Mails that all workers saw accepted in the last seconds, and since when.
SELECT coalesce(sum(mails), 0)::int AS mails,
    extract(epoch FROM clock_timestamp() - min(bucket))::float8 AS seconds
FROM send_usage WHERE scope = '' AND seconds = 0 AND bucket > now() - %(seconds)s * interval '1 second'

-- name: write_send_limits
UPDATE send_limits l SET paced_to = to_timestamp(s.paced_to), recent = s.recent, queued_to = to_timestamp(s.queued_to),
    warmup = s.warmup, warmup_started = to_timestamp(s.warmup_started), ceiling = s.ceiling,
    clean_seconds = s.clean_seconds, grown_at = to_timestamp(s.grown_at), pause_seconds = s.pause_seconds,
    paused_until = to_timestamp(s.paused_until), probe_until = to_timestamp(s.probe_until),
    throttled_at = to_timestamp(s.throttled_at), reply = s.reply, updated_at = now()
FROM jsonb_to_recordset(%(states)s) AS s(scope text, paced_to float8, recent jsonb, queued_to float8, warmup jsonb,
    warmup_started float8, ceiling float8, clean_seconds float8, grown_at float8, pause_seconds float8,
    paused_until float8, probe_until float8, throttled_at float8, reply text)
WHERE l.scope = s.scope

-- name: add_send_usage
INSERT INTO send_usage AS u (scope, seconds, bucket, mails)
SELECT scope, seconds, to_timestamp(bucket), mails
FROM jsonb_to_recordset(%(usage)s) AS n(scope text, seconds int, bucket float8, mails int)
ORDER BY scope, seconds, bucket
ON CONFLICT (scope, seconds, bucket) DO UPDATE SET mails = greatest(u.mails + excluded.mails, 0)

-- name: add_accepted
INSERT INTO send_usage AS u (scope, seconds, bucket, mails)
VALUES ('', 0, date_trunc('second', clock_timestamp()), %(mails)s)
ON CONFLICT (scope, seconds, bucket) DO UPDATE SET mails = u.mails + excluded.mails

-- name: remove_old_usage
-- What no window counts any more. Rows that another session has locked are left for the next time.
DELETE FROM send_usage u
USING (
    SELECT scope, seconds, bucket FROM send_usage
    WHERE bucket < now() - (seconds + seconds / 30 + 60) * interval '1 second'
    ORDER BY scope, seconds, bucket FOR UPDATE SKIP LOCKED
) old
WHERE u.scope = old.scope AND u.seconds = old.seconds AND u.bucket = old.bucket

-- name: remove_old_limits
-- Domains that no mail went to for a day and that have nothing to remember.
DELETE FROM send_limits l
USING (
    SELECT scope FROM send_limits
    WHERE scope <> '' AND ceiling IS NULL AND updated_at < now() - interval '1 day'
    ORDER BY scope FOR UPDATE SKIP LOCKED
) old
WHERE l.scope = old.scope

-- name: send_limits_in_force
-- What every worker keeps in memory for a second: the rates that an admin set, and the scopes that have learned.
SELECT extract(epoch FROM clock_timestamp())::float8 AS now,
    (SELECT jsonb_build_object('rate', rate, 'rate_domain', rate_domain, 'warmup', warmup, 'set_by', set_by,
        'set_at', extract(epoch FROM set_at)) FROM send_rate_settings) AS settings,
    (SELECT jsonb_agg(to_jsonb(s)) FROM (
        SELECT {{send_limit_columns}} FROM send_limits l WHERE l.ceiling IS NOT NULL OR l.pause_seconds > 0
    ) s) AS states

-- name: put_back_items
-- Deliveries whose slot is not now: their items are due at about the time of it. No attempt is used.
WITH items AS MATERIALIZED (
    SELECT i.batch_id, i.member_id, p.delay
    FROM jsonb_to_recordset(%(items)s) AS p(batch_id bigint, member_id bigint, delay float8)
    CROSS JOIN LATERAL (
        SELECT batch_id, member_id FROM batch_items
        WHERE batch_id = p.batch_id AND member_id = p.member_id AND settled_at IS NULL AND excluded IS NULL
        FOR UPDATE
    ) i
    ORDER BY i.batch_id, i.member_id
)
UPDATE batch_items i SET publish_at = now() + p.delay * interval '1 second'
FROM items p WHERE i.batch_id = p.batch_id AND i.member_id = p.member_id

-- name: set_send_rates
INSERT INTO send_rate_settings (rate, rate_domain, warmup, set_by, set_at)
VALUES (%(rate)s, %(rate_domain)s, %(warmup)s, %(set_by)s, now())
ON CONFLICT (is_set) DO UPDATE SET rate = excluded.rate, rate_domain = excluded.rate_domain, warmup = excluded.warmup,
    set_by = excluded.set_by, set_at = excluded.set_at

-- name: unset_send_rates
DELETE FROM send_rate_settings

-- name: send_limits_to_show
-- The mail server's scope with its usage, and the domains that throttled lately, the slowest first.
SELECT {{send_limit_columns}}, {{usage_of_scope}}, extract(epoch FROM clock_timestamp())::float8 AS now
FROM send_limits l
WHERE l.scope = '' OR ((l.ceiling IS NOT NULL OR l.pause_seconds > 0) AND l.throttled_at > now() - interval '1 day')
ORDER BY l.scope <> '', l.pause_seconds DESC, l.ceiling, l.scope
LIMIT %(limit)s
