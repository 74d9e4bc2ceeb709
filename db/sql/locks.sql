-- Who keeps a session waiting: asked by a worker from a second connection while its first waits.

-- name: lock_holders
-- The sessions that the session `pid` waits for, and those that they wait for in turn. No queries: they hold addresses.
WITH RECURSIVE chain(pid, depth) AS (
    SELECT holder, 1 FROM unnest(pg_blocking_pids(%(pid)s)) AS holder
    UNION
    SELECT holder, depth + 1 FROM chain c CROSS JOIN LATERAL unnest(pg_blocking_pids(c.pid)) AS holder WHERE depth < 5
)
SELECT DISTINCT a.pid, coalesce(nullif(a.application_name, ''), '?') AS application, coalesce(a.state, '?') AS state,
    coalesce(extract(epoch FROM now() - a.xact_start)::int, 0) AS seconds
FROM chain c JOIN pg_stat_activity a ON a.pid = c.pid
ORDER BY 4 DESC LIMIT 5

-- name: lock_migrations
-- Concurrent `bidden migrate` take turns.
SELECT pg_advisory_lock(hashtextextended('bidden: migrate', {{schema_seed}}))
