-- What the connected user may not do, and needs to: for `bidden doctor`. Changes nothing.

-- name: missing_rights
SELECT privilege || ' on ' || relation || ' (' || string_agg(process, ', ' ORDER BY process) || ')' AS name
FROM jsonb_to_recordset(%(wanted)s) AS w(process text, relation text, privilege text)
WHERE NOT has_table_privilege(to_regclass(quote_ident(relation)), privilege)
GROUP BY relation, privilege
UNION ALL
SELECT 'EXECUTE on ' || proname || ' (worker)' FROM pg_proc
WHERE pronamespace = current_schema()::regnamespace AND proname = ANY(%(functions)s)
    AND NOT has_function_privilege(oid, 'EXECUTE')
UNION ALL
SELECT 'ownership of ' || relname || ' (migrate)' FROM pg_class
WHERE %(owns)s AND relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'v')
    AND NOT pg_has_role(relowner, 'USAGE')
UNION ALL
SELECT 'CREATE on schema ' || current_schema() || ' (migrate)'
WHERE %(owns)s AND NOT has_schema_privilege(current_schema(), 'CREATE')
ORDER BY 1

-- name: missing_membership
SELECT 'membership of ' || rolname AS name FROM pg_roles WHERE rolname = %(role)s AND NOT pg_has_role(oid, 'USAGE')
