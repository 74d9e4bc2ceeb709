"""Every route of the API, and who may call it. A route that is missing here fails a test."""

from __future__ import annotations

from typing import Any, Final

from web.auth.api_clients import Scope

KEY: Final = {"headers": {"Idempotency-Key": "k"}}
DEAD_LETTERS: Final = {"json": {"letters": [{"partition": 0, "offset": 0}]}}
#: Each route: its scope, its request, and the status for an organiser of the chapter, of another one, and an admin.
ROUTES: Final[dict[tuple[str, str], tuple[Scope, dict[str, Any], int, int, int]]] = {
    ("GET", "/events"): (Scope.READ, {}, 200, 200, 200),
    ("GET", "/events/{event}"): (Scope.READ, {}, 200, 404, 200),
    ("GET", "/events/{event}/dry-run"): (Scope.READ, {}, 200, 404, 200),
    ("GET", "/events/{event}/people"): (Scope.READ, {}, 200, 404, 200),
    ("GET", "/events/{event}/audit"): (Scope.READ, {}, 200, 404, 200),
    ("GET", "/events/{event}/members/{member}/why"): (Scope.READ, {}, 200, 404, 200),
    ("GET", "/batches"): (Scope.READ, {}, 200, 200, 200),
    ("GET", "/batches/{batch}"): (Scope.READ, {}, 200, 404, 200),
    ("GET", "/batches/{batch}/entries"): (Scope.READ, {}, 200, 404, 200),
    # 404 even for those who may see the batch: their clients have no webhook.
    ("GET", "/batches/{batch}/webhook"): (Scope.READ, {}, 404, 404, 404),
    ("POST", "/events/{event}/batches"): (Scope.INVITE, {"json": {"audience": "students"}} | KEY, 201, 404, 201),
    ("POST", "/events/{event}/resolve"): (Scope.OPERATE, {"json": {"verdict": "failed"}}, 200, 404, 200),
    ("POST", "/batches/{batch}/pause"): (Scope.OPERATE, {}, 200, 404, 200),
    ("POST", "/batches/{batch}/resume"): (Scope.OPERATE, {}, 200, 404, 200),
    ("POST", "/batches/{batch}/retry"): (Scope.OPERATE, {}, 200, 404, 200),
    ("POST", "/batches/{batch}/cancel"): (Scope.OPERATE, {}, 200, 404, 200),
    # Kafka is unreachable in these tests: 503 means that the client may read dead letters.
    ("GET", "/dead-letters"): (Scope.DEAD_LETTERS, {}, 403, 403, 503),
    ("GET", "/dead-letters/{partition}/{offset}"): (Scope.DEAD_LETTERS, {}, 403, 403, 503),
    ("POST", "/dead-letters/redrive"): (Scope.DEAD_LETTERS, DEAD_LETTERS, 403, 403, 503),
}
