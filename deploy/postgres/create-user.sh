#!/bin/sh
# Run once by the image of PostgreSQL, when its volume is empty: the user of bidden owns its database, and nothing else.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE bidden LOGIN PASSWORD 'bidden' NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
CREATE DATABASE bidden OWNER bidden;
REVOKE ALL ON DATABASE bidden FROM PUBLIC;
SQL
# The superuser by the socket in its container only: docker compose exec postgres psql -U postgres
sed -i '1i host all postgres all reject' "$PGDATA/pg_hba.conf"
