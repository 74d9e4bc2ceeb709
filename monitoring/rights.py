"""The rights of each process as files for operators: deploy/grants.sql, and a script of ACLs for each in deploy/acls.

python -m monitoring.rights            # writes them
python -m monitoring.rights --check    # fails if they are not current
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from config.rights import Process, kafka_names, kafka_rights
from db.rights import CALLERS, SEES_SESSIONS, SESSIONS_ROLE, analysed, table_rights
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON

DEPLOY: Final = Path(__file__).resolve().parents[1] / "deploy"
#: As the shell has them.
_NAMES: Final = kafka_names("$PREFIX", "$GROUP")
_SCRIPT: Final = """\
#!/bin/sh
# The ACLs of {process}, and no more. Written by `python -m monitoring.rights`.
#
#   PRINCIPAL=User:{user} BOOTSTRAP=kafka:9092 {file}
#
# PREFIX and GROUP are BIDDEN_TOPIC_PREFIX and BIDDEN_GROUP, CONFIG the file of an administrator's client.
set -eu
PREFIX=${{PREFIX:-bidden}} GROUP=${{GROUP:-bidden-workers}}

allow() {{
    "${{KAFKA_ACLS:-kafka-acls.sh}}" --bootstrap-server "$BOOTSTRAP" ${{CONFIG:+--command-config "$CONFIG"}} \\
        --add --force --allow-principal "$PRINCIPAL" "$@"
}}

"""
_SQL: Final = """\
-- The rights of each process in the database, and no more. Written by `python -m monitoring.rights`.
--
-- Run it as the owner of the tables, after each `bidden migrate`, in the schema of the installation:
--
--   psql "$OWNER_URL" -v ON_ERROR_STOP=1 -f deploy/grants.sql
--   CREATE ROLE invitations_worker LOGIN PASSWORD '…' IN ROLE bidden_worker;    -- and so on, once
--
-- `migrate` runs as the owner. All workers use one login: a worker ends the session that it has lost itself
-- (pg_terminate_backend), which PostgreSQL permits between sessions of one user, and to nobody else here.

"""
_ROLES: Final = """\
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY[{roles}] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
        EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), role);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
    END LOOP;
END $$;
"""
_FUNCTIONS: Final = """
-- The functions of a worker's transactions: one for each version of their text.
DO $$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT oid FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND proname LIKE 'bidden\\_%'
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {role}', function);
    END LOOP;
END $$;
"""
_MAINTAIN: Final = """
-- To analyse tables after a large plan or import. PostgreSQL 17 or newer; without it the next autovacuum does.
DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 170000 THEN
{grants}
    END IF;
END $$;
"""


def role(process: Process) -> str:
    """The role that deploy/grants.sql makes for the process."""
    return f"bidden_{process}"


def files() -> dict[Path, str]:
    """What each file must hold."""
    scripts = {DEPLOY / "acls" / f"{process}.sh": _acls(process) for process in Process}
    return {**scripts, DEPLOY / "grants.sql": _grants()}


def _acls(process: Process) -> str:
    lines = []
    for right in kafka_rights(process, _NAMES):
        resource = "--cluster" if right.kind == "cluster" else f'--{right.kind} "{right.name}"'
        operation = {"DESCRIBE_CONFIGS": "DescribeConfigs"}.get(right.operation, right.operation.capitalize())
        lines.append(f"allow --operation {operation} {resource}\n")
    head = _SCRIPT.format(process=f"`bidden {process}`" if process is Process.MIGRATE else f"the {process}",
                          user=f"bidden-{process}", file=f"deploy/acls/{process}.sh")  # fmt: skip
    return head + "".join(lines)


def _grants() -> str:
    roles = [process for process in Process if process is not Process.MIGRATE]
    parts = [_SQL, _ROLES.format(roles=", ".join(f"'{role(process)}'" for process in roles))]
    for process in roles:
        parts.append(f"\n-- {process}\n")
        parts += [
            f"GRANT {', '.join(privileges)} ON {table} TO {role(process)};\n"
            for table, privileges in table_rights(process)
        ]
        if process in SEES_SESSIONS:
            # Granted by a superuser, or by who has it with ADMIN OPTION.
            parts.append(f"GRANT {SESSIONS_ROLE} TO {role(process)};\n")
    parts += [_FUNCTIONS.format(role=role(process)) for process in CALLERS]
    grants = [
        f"        GRANT MAINTAIN ON {', '.join(analysed(process))} TO {role(process)};"
        for process in roles
        if analysed(process)
    ]
    parts.append(_MAINTAIN.format(grants="\n".join(grants)))
    return "".join(parts)


def main(arguments: list[str]) -> int:
    """Write the files, or say which are not current."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            sys.stderr.write(f"{path} is not current: run `make docs`\n")
        return EXIT_NEEDS_A_PERSON if stale else EXIT_DONE
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files()[path], encoding="utf-8")
        if path.suffix == ".sh":
            path.chmod(0o755)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
