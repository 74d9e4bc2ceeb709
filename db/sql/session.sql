-- The first statements of each session: they ask what it is, and set it up.
--
-- Two installations may share a database, each with a schema of its own. What is a database's and no schema's, advisory
-- locks and the names in pg_stat_activity, is told apart by the schema.

-- fragment: in_schema
-- Appended to the name of a session.
CASE WHEN current_schema() = 'public' THEN '' WHEN length(current_schema()) <= 30 THEN '@' || current_schema()
ELSE '@' || left(current_schema(), 21) || '-' || left(md5(current_schema()), 8) END

-- fragment: schema_seed
-- The second argument of `hashtextextended` for the key of an advisory lock.
hashtextextended(current_schema(), 0)

-- name: identify_session
SELECT pg_backend_pid() AS pid,
    (SELECT backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS started, current_database()::text AS database, current_setting('search_path') AS search_path,
    current_schema()::text AS schema,
    (
        SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = to_regclass('alembic_version')
    ) AS schema_of_tables

-- name: end_server_session
-- Ends another session and waits for it; no row for one that is over. Pids are used again, so its start must match. A pooler
-- may have given it to the caller again.
SELECT pg_terminate_backend(pid, %(wait_ms)s) AS ended
FROM pg_stat_activity
WHERE pid = %(pid)s AND backend_start::text = %(started)s AND pid <> pg_backend_pid()

-- name: set_up_session
-- Also names it, so that an operator and `dispatchers` find it.
SELECT (SELECT count(set_config(key, value, false)) FROM jsonb_each_text(%(settings)s)) AS n,
    set_config('application_name', %(application)s || {{in_schema}}, false) AS application
