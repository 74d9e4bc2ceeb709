-- The rights of each process in the database, and no more. Written by `python -m monitoring.rights`.
--
-- Run it as the owner of the tables, after each `bidden migrate`, in the schema of the installation:
--
--   psql "$OWNER_URL" -v ON_ERROR_STOP=1 -f deploy/grants.sql
--   CREATE ROLE invitations_worker LOGIN PASSWORD '…' IN ROLE bidden_worker;    -- and so on, once
--
-- `migrate` runs as the owner. All workers use one login: a worker ends the session that it has lost itself
-- (pg_terminate_backend), which PostgreSQL permits between sessions of one user, and to nobody else here.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['bidden_worker', 'bidden_dispatcher', 'bidden_web', 'bidden_operator'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
        EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), role);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
    END LOOP;
END $$;

-- worker
GRANT SELECT ON alembic_version TO bidden_worker;
GRANT SELECT ON bans TO bidden_worker;
GRANT SELECT, UPDATE ON batch_items TO bidden_worker;
GRANT SELECT, UPDATE ON batches TO bidden_worker;
GRANT SELECT ON chapters TO bidden_worker;
GRANT SELECT, UPDATE ON deliveries TO bidden_worker;
GRANT SELECT ON directory_source TO bidden_worker;
GRANT SELECT ON event_chapters TO bidden_worker;
GRANT SELECT ON event_subscriptions TO bidden_worker;
GRANT SELECT ON events TO bidden_worker;
GRANT SELECT ON invitations TO bidden_worker;
GRANT SELECT, INSERT, UPDATE ON log_entries TO bidden_worker;
GRANT SELECT ON members TO bidden_worker;
GRANT INSERT ON outcome_outbox TO bidden_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON polls_in_flight TO bidden_worker;
GRANT SELECT ON same_person TO bidden_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON send_limits TO bidden_worker;
GRANT SELECT ON send_rate_settings TO bidden_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON send_usage TO bidden_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON suspects TO bidden_worker;

-- dispatcher
GRANT SELECT ON alembic_version TO bidden_dispatcher;
GRANT SELECT, UPDATE, DELETE ON audit_log TO bidden_dispatcher;
GRANT SELECT ON bans TO bidden_dispatcher;
GRANT SELECT, INSERT, UPDATE, DELETE ON batch_items TO bidden_dispatcher;
GRANT SELECT, UPDATE, DELETE ON batch_webhooks TO bidden_dispatcher;
GRANT SELECT, INSERT, UPDATE ON batches TO bidden_dispatcher;
GRANT SELECT, INSERT, UPDATE ON deliveries TO bidden_dispatcher;
GRANT SELECT ON directory_source TO bidden_dispatcher;
GRANT SELECT ON discarded_dead_letters TO bidden_dispatcher;
GRANT SELECT ON event_chapters TO bidden_dispatcher;
GRANT SELECT ON event_subscriptions TO bidden_dispatcher;
GRANT SELECT, UPDATE ON events TO bidden_dispatcher;
GRANT SELECT ON groups TO bidden_dispatcher;
GRANT SELECT, INSERT, UPDATE, DELETE ON invitations TO bidden_dispatcher;
GRANT SELECT, INSERT, UPDATE, DELETE ON log_entries TO bidden_dispatcher;
GRANT SELECT ON members TO bidden_dispatcher;
GRANT SELECT ON opted_out TO bidden_dispatcher;
GRANT SELECT, INSERT, DELETE ON outcome_outbox TO bidden_dispatcher;
GRANT SELECT, UPDATE, DELETE ON password_resets TO bidden_dispatcher;
GRANT SELECT ON redriven_dead_letters TO bidden_dispatcher;
GRANT SELECT ON same_person TO bidden_dispatcher;
GRANT SELECT, UPDATE, DELETE ON send_limits TO bidden_dispatcher;
GRANT SELECT ON send_rate_settings TO bidden_dispatcher;
GRANT SELECT, UPDATE, DELETE ON send_usage TO bidden_dispatcher;
GRANT SELECT, UPDATE, DELETE ON sessions TO bidden_dispatcher;
GRANT SELECT ON set_aside_lines TO bidden_dispatcher;
GRANT SELECT, UPDATE, DELETE ON sign_in_attempts TO bidden_dispatcher;
GRANT SELECT, UPDATE, DELETE ON sign_in_requests TO bidden_dispatcher;
GRANT SELECT ON subscriptions TO bidden_dispatcher;

-- web
GRANT SELECT, INSERT, DELETE ON account_chapters TO bidden_web;
GRANT SELECT, INSERT, UPDATE ON accounts TO bidden_web;
GRANT SELECT ON alembic_version TO bidden_web;
GRANT SELECT, INSERT, UPDATE ON api_clients TO bidden_web;
GRANT SELECT, INSERT, UPDATE ON audit_log TO bidden_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON bans TO bidden_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON batch_items TO bidden_web;
GRANT SELECT, INSERT, UPDATE ON batch_webhooks TO bidden_web;
GRANT SELECT, INSERT, UPDATE ON batches TO bidden_web;
GRANT SELECT, INSERT, UPDATE ON chapters TO bidden_web;
GRANT SELECT, INSERT, UPDATE ON deliveries TO bidden_web;
GRANT SELECT ON directory_source TO bidden_web;
GRANT SELECT, INSERT ON discarded_dead_letters TO bidden_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON event_chapters TO bidden_web;
GRANT SELECT ON event_subscriptions TO bidden_web;
GRANT SELECT, INSERT, UPDATE ON events TO bidden_web;
GRANT SELECT, INSERT ON former_mailboxes TO bidden_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON groups TO bidden_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON invitations TO bidden_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON log_entries TO bidden_web;
GRANT SELECT, INSERT, UPDATE ON members TO bidden_web;
GRANT SELECT, INSERT, DELETE ON opt_outs TO bidden_web;
GRANT SELECT ON opted_out TO bidden_web;
GRANT INSERT ON outcome_outbox TO bidden_web;
GRANT SELECT, INSERT, DELETE ON password_resets TO bidden_web;
GRANT SELECT, INSERT, UPDATE ON redriven_dead_letters TO bidden_web;
GRANT SELECT ON same_person TO bidden_web;
GRANT SELECT, UPDATE ON send_limits TO bidden_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON send_rate_settings TO bidden_web;
GRANT SELECT ON send_usage TO bidden_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO bidden_web;
GRANT SELECT ON set_aside_lines TO bidden_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON sign_in_attempts TO bidden_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON sign_in_requests TO bidden_web;
GRANT SELECT, DELETE ON source_lines TO bidden_web;
GRANT SELECT, INSERT, DELETE ON subscriptions TO bidden_web;
GRANT pg_read_all_stats TO bidden_web;

-- operator
GRANT SELECT, INSERT, DELETE ON account_chapters TO bidden_operator;
GRANT SELECT, INSERT ON accounts TO bidden_operator;
GRANT SELECT ON alembic_version TO bidden_operator;
GRANT SELECT, UPDATE ON api_clients TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON audit_log TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON bans TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON batch_items TO bidden_operator;
GRANT SELECT, UPDATE, DELETE ON batch_webhooks TO bidden_operator;
GRANT SELECT, INSERT, UPDATE ON batches TO bidden_operator;
GRANT SELECT, INSERT, UPDATE ON chapters TO bidden_operator;
GRANT SELECT, INSERT, UPDATE ON deliveries TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON directory_source TO bidden_operator;
GRANT SELECT, INSERT ON discarded_dead_letters TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON event_chapters TO bidden_operator;
GRANT SELECT ON event_subscriptions TO bidden_operator;
GRANT SELECT, INSERT, UPDATE ON events TO bidden_operator;
GRANT SELECT, INSERT ON former_mailboxes TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON groups TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON invitations TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON log_entries TO bidden_operator;
GRANT SELECT, INSERT, UPDATE ON members TO bidden_operator;
GRANT SELECT, UPDATE ON opt_outs TO bidden_operator;
GRANT SELECT ON opted_out TO bidden_operator;
GRANT INSERT ON outcome_outbox TO bidden_operator;
GRANT SELECT, UPDATE, DELETE ON password_resets TO bidden_operator;
GRANT SELECT, INSERT, UPDATE ON redriven_dead_letters TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON reported_batches TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON reported_entries TO bidden_operator;
GRANT SELECT ON same_person TO bidden_operator;
GRANT SELECT, UPDATE, DELETE ON send_limits TO bidden_operator;
GRANT SELECT ON send_rate_settings TO bidden_operator;
GRANT SELECT, UPDATE, DELETE ON send_usage TO bidden_operator;
GRANT SELECT, UPDATE, DELETE ON sessions TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON set_aside_lines TO bidden_operator;
GRANT SELECT, UPDATE, DELETE ON sign_in_attempts TO bidden_operator;
GRANT SELECT, UPDATE, DELETE ON sign_in_requests TO bidden_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON source_lines TO bidden_operator;
GRANT SELECT, INSERT, DELETE ON subscriptions TO bidden_operator;
GRANT pg_read_all_stats TO bidden_operator;

-- The functions of a worker's transactions: one for each version of their text.
DO $$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT oid FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND proname LIKE 'bidden\_%'
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO bidden_worker', function);
    END LOOP;
END $$;

-- To analyse tables after a large plan or import. PostgreSQL 17 or newer; without it the next autovacuum does.
DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 170000 THEN
        GRANT MAINTAIN ON batch_items, deliveries, invitations TO bidden_dispatcher;
        GRANT MAINTAIN ON batch_items, deliveries, invitations, members, subscriptions TO bidden_web;
        GRANT MAINTAIN ON batch_items, deliveries, invitations, members, subscriptions TO bidden_operator;
    END IF;
END $$;
