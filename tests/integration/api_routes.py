"""Every route of the API, and who may call it. A route that is missing here fails a test."""

from __future__ import annotations

from typing import Any, Final

from web.auth.api_clients import ApiScope

KEY: Final = {"headers": {"Idempotency-Key": "k"}}
DEAD_LETTERS: Final = {"json": {"letters": [{"partition": 0, "offset": 0}]}}
#: Each route: its scope, its request, and the status for an organiser of the chapter, of another one, and an admin.
ROUTES: Final[dict[tuple[str, str], tuple[ApiScope, dict[str, Any], int, int, int]]] = {
    ("GET", "/events"): (ApiScope.READ, {}, 200, 200, 200),
    ("GET", "/events/{event}"): (ApiScope.READ, {}, 200, 404, 200),
    ("GET", "/events/{event}/dry-run"): (ApiScope.READ, {}, 200, 404, 200),
    ("GET", "/events/{event}/people"): (ApiScope.READ, {}, 200, 404, 200),
    ("GET", "/events/{event}/audit"): (ApiScope.READ, {}, 200, 404, 200),
    ("GET", "/events/{event}/members/{member}/why"): (ApiScope.READ, {}, 200, 404, 200),
    ("GET", "/batches"): (ApiScope.READ, {}, 200, 200, 200),
    ("GET", "/batches/{batch}"): (ApiScope.READ, {}, 200, 404, 200),
    ("GET", "/batches/{batch}/entries"): (ApiScope.READ, {}, 200, 404, 200),
    # 404 even for those who may see the batch: their clients have no webhook.
    ("GET", "/batches/{batch}/webhook"): (ApiScope.READ, {}, 404, 404, 404),
    ("POST", "/events/{event}/batches"): (ApiScope.INVITE, {"json": {"audience": "students"}} | KEY, 201, 404, 201),
    ("POST", "/events/{event}/resolve"): (ApiScope.OPERATE, {"json": {"verdict": "failed"}}, 200, 404, 200),
    ("POST", "/batches/{batch}/pause"): (ApiScope.OPERATE, {}, 200, 404, 200),
    ("POST", "/batches/{batch}/resume"): (ApiScope.OPERATE, {}, 200, 404, 200),
    ("POST", "/batches/{batch}/retry"): (ApiScope.OPERATE, {}, 200, 404, 200),
    ("POST", "/batches/{batch}/cancel"): (ApiScope.OPERATE, {}, 200, 404, 200),
    # Kafka is unreachable in these tests: 503 means that the client may read dead letters.
    ("GET", "/dead-letters"): (ApiScope.DEAD_LETTERS, {}, 403, 403, 503),
    ("GET", "/dead-letters/{partition}/{offset}"): (ApiScope.DEAD_LETTERS, {}, 403, 403, 503),
    ("POST", "/dead-letters/redrive"): (ApiScope.DEAD_LETTERS, DEAD_LETTERS, 403, 403, 503),
    ("POST", "/dead-letters/discard"): (ApiScope.DEAD_LETTERS, DEAD_LETTERS, 403, 403, 503),
}
