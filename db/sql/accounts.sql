-- Accounts, sessions, pending sign-ins and API clients. No worker uses these statements.

-- fragment: account_columns
a.id, a.email, a.name, a.role, a.disabled_at,
ARRAY(SELECT c.chapter_id FROM account_chapters c WHERE c.account_id = a.id ORDER BY c.chapter_id) AS chapters

-- name: find_credentials
SELECT {{account_columns}}, a.password_hash FROM accounts a WHERE a.email = %(email)s AND a.disabled_at IS NULL

-- name: find_account_by_identity
SELECT {{account_columns}} FROM accounts a
WHERE a.oidc_issuer = %(issuer)s AND a.oidc_subject = %(subject)s AND a.disabled_at IS NULL

-- name: bind_identity
-- Once: from then on this account is of this subject alone, whatever addresses the provider gives to others. A subject
-- of another provider than before may be bound again.
UPDATE accounts a SET oidc_issuer = %(issuer)s, oidc_subject = %(subject)s
WHERE a.email = %(email)s AND a.disabled_at IS NULL AND a.oidc_issuer IS DISTINCT FROM %(issuer)s
    AND NOT EXISTS (SELECT FROM accounts b WHERE b.oidc_issuer = %(issuer)s AND b.oidc_subject = %(subject)s)

-- name: list_accounts
SELECT {{account_columns}}, a.created_at, a.password_hash IS NOT NULL AS has_password,
    (SELECT max(s.seen_at) FROM sessions s WHERE s.account_id = a.id) AS seen_at
FROM accounts a WHERE %(id)s::bigint IS NULL OR a.id = %(id)s ORDER BY a.email

-- name: get_account
SELECT {{account_columns}} FROM accounts a WHERE a.id = %(id)s

-- name: get_account_by_email
SELECT {{account_columns}} FROM accounts a WHERE a.email = %(email)s

-- name: insert_account
INSERT INTO accounts (email, name, role, password_hash, created_at)
VALUES (%(email)s, %(name)s, %(role)s, %(password_hash)s, now())
ON CONFLICT (email) DO NOTHING RETURNING id

-- name: update_account
UPDATE accounts SET name = %(name)s, role = %(role)s WHERE id = %(id)s

-- name: lock_admins
-- Without the lock, two concurrent changes could each count on the other's admin to be left.
SELECT FROM accounts WHERE role = 'admin' ORDER BY id FOR UPDATE

-- name: count_active_admins
SELECT count(*) AS n FROM accounts WHERE role = 'admin' AND disabled_at IS NULL

-- name: set_password
UPDATE accounts SET password_hash = %(password_hash)s
WHERE id = %(id)s AND (%(old_hash)s::text IS NULL OR password_hash = %(old_hash)s)

-- name: disable_account
UPDATE accounts SET disabled_at = coalesce(disabled_at, now()) WHERE id = %(id)s

-- name: revoke_clients_of_account
-- Those that act for it, and those that it made: whoever made a client has seen its token.
UPDATE api_clients SET revoked_at = now()
WHERE (account_id = %(id)s OR made_by = %(id)s) AND revoked_at IS NULL

-- name: enable_account
-- The next who signs in by the provider, with the verified address, is bound again.
UPDATE accounts SET disabled_at = NULL, oidc_issuer = NULL, oidc_subject = NULL WHERE id = %(id)s

-- name: delete_other_chapters
DELETE FROM account_chapters WHERE account_id = %(id)s AND chapter_id <> ALL(%(chapters)s)

-- name: insert_chapters
INSERT INTO account_chapters (account_id, chapter_id)
SELECT %(id)s, c.id FROM chapters c WHERE c.id = ANY(%(chapters)s)
ON CONFLICT DO NOTHING

-- name: list_chapters
SELECT id, name FROM chapters WHERE %(chapters)s::bigint[] IS NULL OR id = ANY(%(chapters)s) ORDER BY name, id

-- name: insert_session
-- FOR SHARE waits for a concurrent change of the account, and then evaluates the conditions again.
INSERT INTO sessions (token_hash, account_id, created_at, seen_at, expires_at)
SELECT %(token_hash)s, a.id, now(), now(), now() + %(seconds)s * interval '1 second'
FROM accounts a
WHERE a.id = %(account_id)s AND a.disabled_at IS NULL
    AND (%(password_hash)s::text IS NULL OR a.password_hash = %(password_hash)s)
FOR SHARE OF a

-- name: find_account_by_session
SELECT {{account_columns}}, s.seen_at < now() - interval '1 minute' AS is_stale
FROM sessions s JOIN accounts a ON a.id = s.account_id
WHERE s.token_hash = %(token_hash)s AND a.disabled_at IS NULL AND s.expires_at > now()
    AND s.seen_at > now() - %(idle_seconds)s * interval '1 second'

-- name: touch_session
UPDATE sessions SET seen_at = now() WHERE token_hash = %(token_hash)s

-- name: end_session
DELETE FROM sessions WHERE token_hash = %(token_hash)s

-- name: end_sessions_of_account
DELETE FROM sessions WHERE account_id = %(id)s AND token_hash IS DISTINCT FROM %(keep)s

-- name: renew_session
UPDATE sessions SET token_hash = %(new)s, seen_at = now() WHERE token_hash = %(old)s

-- name: insert_sign_in_request
INSERT INTO sign_in_requests (state_hash, nonce, verifier, next_path, expires_at)
VALUES (%(state_hash)s, %(nonce)s, %(verifier)s, %(next_path)s, now() + %(seconds)s * interval '1 second')

-- name: consume_sign_in_request
-- Deleted whatever the outcome: a state is good for one callback.
DELETE FROM sign_in_requests WHERE state_hash = %(state_hash)s
RETURNING nonce, verifier, next_path, expires_at > now() AS is_current

-- name: lock_account
SELECT FROM accounts WHERE id = %(id)s FOR NO KEY UPDATE

-- fragment: may_reset_password
a.disabled_at IS NULL AND a.password_hash IS NOT NULL

-- name: insert_password_reset
INSERT INTO password_resets (token_hash, account_id, expires_at)
SELECT %(token_hash)s, a.id, now() + %(seconds)s * interval '1 second' FROM accounts a
WHERE a.id = %(account_id)s AND {{may_reset_password}}
    AND (SELECT count(*) FROM password_resets r WHERE r.account_id = a.id AND r.expires_at > now()) < %(most)s

-- name: find_password_reset
SELECT {{account_columns}} FROM password_resets r JOIN accounts a ON a.id = r.account_id
WHERE r.token_hash = %(token_hash)s AND r.expires_at > now() AND {{may_reset_password}}

-- name: consume_password_reset
DELETE FROM password_resets r USING accounts a
WHERE r.token_hash = %(token_hash)s AND r.expires_at > now() AND a.id = r.account_id AND {{may_reset_password}}
RETURNING r.account_id

-- name: delete_password_resets
DELETE FROM password_resets WHERE account_id = %(id)s

-- name: count_attempt
-- Counted before the password is verified: so concurrent guesses are all counted.
INSERT INTO sign_in_attempts (key, attempts, since) VALUES (%(key)s, 1, now())
ON CONFLICT (key) DO UPDATE SET
    attempts = CASE WHEN sign_in_attempts.since < now() - %(seconds)s * interval '1 second'
        THEN 1 ELSE sign_in_attempts.attempts + 1 END,
    since = CASE WHEN sign_in_attempts.since < now() - %(seconds)s * interval '1 second'
        THEN now() ELSE sign_in_attempts.since END
RETURNING attempts, extract(epoch FROM since - now())::float8 + %(seconds)s AS seconds_left

-- name: reset_attempts
DELETE FROM sign_in_attempts WHERE key = ANY(%(keys)s)

-- name: insert_client
INSERT INTO api_clients (name, account_id, token_hash, scopes, webhook_url, webhook_secret, created_at, expires_at,
    made_by)
VALUES (%(name)s, %(account_id)s, %(token_hash)s, %(scopes)s, %(webhook_url)s, %(webhook_secret)s, now(),
    %(expires_at)s, %(made_by)s)
RETURNING id

-- fragment: client_is_active
k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())

-- name: find_client_by_token
SELECT {{account_columns}}, k.id AS client_id, k.name AS client_name, k.scopes, k.webhook_url IS NOT NULL AS has_webhook,
    k.used_at IS NULL OR k.used_at < now() - interval '1 minute' AS is_stale
FROM api_clients k JOIN accounts a ON a.id = k.account_id
WHERE k.token_hash = %(token_hash)s AND {{client_is_active}} AND a.disabled_at IS NULL

-- name: touch_client
UPDATE api_clients SET used_at = now() WHERE id = %(id)s

-- name: list_clients
SELECT k.id, k.name, k.scopes, k.webhook_url, k.created_at, k.used_at, k.revoked_at, a.email, k.expires_at,
    k.expires_at <= now() AS has_expired
FROM api_clients k JOIN accounts a ON a.id = k.account_id ORDER BY k.id

-- name: revoke_client
UPDATE api_clients SET revoked_at = coalesce(revoked_at, now()) WHERE id = %(id)s
