-- The tables of codebar's planner that sources/planner.sql reads: columns, types and unique indexes as of late 2026. It
-- has hardly any foreign keys, and its times have no zone.
CREATE TABLE chapters (id serial PRIMARY KEY, name varchar, city varchar, email varchar, active boolean DEFAULT true,
    time_zone varchar NOT NULL DEFAULT 'London', slug varchar, created_at timestamp, updated_at timestamp);
CREATE UNIQUE INDEX ON chapters (name);
CREATE UNIQUE INDEX ON chapters (email);
CREATE TABLE groups (id serial PRIMARY KEY, chapter_id int, name varchar, created_at timestamp, updated_at timestamp);
CREATE TABLE members (id serial PRIMARY KEY, name varchar, surname varchar, email varchar, accepted_toc_at timestamp,
    unsubscribed boolean, created_at timestamp, updated_at timestamp);
CREATE UNIQUE INDEX ON members (email);
CREATE TABLE subscriptions (id serial PRIMARY KEY, member_id int, group_id int, discarded_at timestamp(6),
    created_at timestamp, updated_at timestamp);
CREATE UNIQUE INDEX ON subscriptions (member_id, group_id) WHERE discarded_at IS NULL;
CREATE TABLE bans (id serial PRIMARY KEY, member_id int, expires_at timestamp, reason varchar, note text,
    permanent boolean DEFAULT false, added_by_id int, created_at timestamp, updated_at timestamp);
CREATE TABLE sponsors (id serial PRIMARY KEY, name varchar);
CREATE TABLE addresses (id serial PRIMARY KEY, sponsor_id int, flat varchar, street varchar, city varchar,
    postal_code varchar);
CREATE TABLE workshops (id serial PRIMARY KEY, chapter_id int, title varchar, description text, date_and_time timestamp,
    ends_at timestamp, invitable boolean DEFAULT true, virtual boolean DEFAULT false, created_at timestamp,
    updated_at timestamp);
CREATE TABLE workshop_sponsors (id serial PRIMARY KEY, workshop_id int, sponsor_id int, host boolean DEFAULT false);
CREATE UNIQUE INDEX ON workshop_sponsors (sponsor_id, workshop_id);
CREATE TABLE events (id serial PRIMARY KEY, name varchar, slug varchar, description text, date_and_time timestamp,
    ends_at timestamp, venue_id int, invitable boolean DEFAULT false, audience varchar,
    virtual boolean NOT NULL DEFAULT false, time_zone varchar NOT NULL DEFAULT 'London', email varchar);
CREATE TABLE chapters_events (id serial PRIMARY KEY, chapter_id int, event_id int);
CREATE TABLE workshop_invitations (id serial PRIMARY KEY, workshop_id int, member_id int, role varchar,
    attending boolean, attended boolean, automated_rsvp boolean, reminded_at timestamp, rsvp_time timestamp,
    token varchar, source varchar, note text, created_at timestamp, updated_at timestamp);
CREATE UNIQUE INDEX ON workshop_invitations (token);
CREATE UNIQUE INDEX ON workshop_invitations (member_id, workshop_id, role);
CREATE INDEX ON workshop_invitations (workshop_id);
CREATE TABLE invitations (id serial PRIMARY KEY, event_id int, member_id int, role varchar, attending boolean,
    verified boolean, token varchar, source varchar, created_at timestamp, updated_at timestamp);
CREATE UNIQUE INDEX ON invitations (member_id, event_id, role);
CREATE UNIQUE INDEX ON invitations (token);
CREATE INDEX ON invitations (event_id);
CREATE TABLE invitation_logs (id bigserial PRIMARY KEY, loggable_type varchar, loggable_id bigint, chapter_id bigint,
    audience varchar NOT NULL, action varchar NOT NULL DEFAULT 'invite', status varchar NOT NULL DEFAULT 'running',
    initiator_id bigint REFERENCES members, total_invitees int DEFAULT 0, success_count int DEFAULT 0,
    failure_count int DEFAULT 0, skipped_count int DEFAULT 0, error_message text, started_at timestamp(6),
    completed_at timestamp(6), expires_at timestamp(6), created_at timestamp(6) NOT NULL,
    updated_at timestamp(6) NOT NULL);
CREATE UNIQUE INDEX ON invitation_logs (loggable_type, loggable_id, chapter_id, audience, action, status)
    WHERE status = 'running';
CREATE TABLE invitation_log_entries (id bigserial PRIMARY KEY,
    invitation_log_id bigint NOT NULL REFERENCES invitation_logs, member_id bigint NOT NULL, invitation_type varchar,
    invitation_id bigint, status varchar NOT NULL DEFAULT 'success', failure_reason text, processed_at timestamp(6),
    created_at timestamp(6) NOT NULL, updated_at timestamp(6) NOT NULL);
CREATE INDEX ON invitation_log_entries (invitation_type, invitation_id);
