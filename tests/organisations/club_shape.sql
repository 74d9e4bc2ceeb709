-- An organisation whose tables are nothing like planner's: one list, people who leave by a date, answers apart.
CREATE SCHEMA club;
CREATE TABLE club.people (no bigint PRIMARY KEY, given_name text, family_name text, mail varchar(200),
    wants_mail boolean NOT NULL DEFAULT true, left_on date, barred_until date);
CREATE TABLE club.gatherings (no bigint PRIMARY KEY, title text, first_day timestamp with time zone, place text);
CREATE TABLE club.answers (gathering bigint, person bigint, comes boolean, PRIMARY KEY (gathering, person));
-- One for each person, by whom it was issued.
CREATE TABLE club.passes (gathering bigint, person bigint, pass uuid NOT NULL UNIQUE, issuer text NOT NULL,
    issued_at timestamp NOT NULL DEFAULT localtimestamp, PRIMARY KEY (gathering, person));
