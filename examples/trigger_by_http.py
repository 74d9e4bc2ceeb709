"""Start a batch by the HTTP API, wait until it is complete, and print its numbers.

    bidden client add planner --account olga@example.org --scope read --scope invite    # prints the token, once
    BIDDEN_TOKEN=... python examples/trigger_by_http.py 42 students --api http://localhost:8000/api/v1 --key plan-981

The Idempotency-Key makes it safe to send the request again after a timeout, an outage or a crash of this program: the
same key returns the same batch. Take the key from what triggers you (the id of a plan, a row, a message), and never
make up a new one for a repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any, Final

import httpx

_POLL_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 10.0)


class Api:
    """The HTTP API of one server, called with one client's token."""

    def __init__(self, address: str, token: str) -> None:
        self._http = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def start_batch(self, event: int, audience: str, key: str) -> dict[str, Any]:
        """The batch of this key: a new one, or the one that an earlier request with the key has started."""
        return self._call(
            "POST", f"events/{event}/batches", json={"audience": audience}, headers={"Idempotency-Key": key}
        )

    def batch(self, batch: int) -> dict[str, Any]:
        """The batch in numbers, as it is now."""
        return self._call("GET", f"batches/{batch}")

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The answer. A request without one, and 503, are sent again; any other error ends the program."""
        for pause in (*_RETRY_SECONDS, None):
            try:
                response = self._http.request(method, path, **options)
                if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    break
                reason = response.json()["detail"]
            except httpx.TransportError as error:
                reason = str(error)
            if pause is None:
                sys.exit(f"giving up: {reason}")
            time.sleep(pause)
        answer: dict[str, Any] = response.json()
        if response.is_error:  # application/problem+json, RFC 9457
            sys.exit(f"{response.status_code}: {answer['detail']}")
        return answer


def main() -> None:
    """Start, wait, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("event", type=int)
    parser.add_argument("audience", choices=["students", "coaches", "everyone"])
    parser.add_argument("--api", default="http://localhost:8000/api/v1")
    parser.add_argument("--key", required=True, help="the Idempotency-Key of this trigger")
    options = parser.parse_args()
    api = Api(options.api, os.environ["BIDDEN_TOKEN"])
    started = api.start_batch(options.event, options.audience, options.key)
    batch = api.batch(started["batch_id"])
    # Someone may resume a paused batch.
    while batch["state"] in ("running", "paused"):
        time.sleep(_POLL_SECONDS)
        batch = api.batch(batch["batch_id"])
    print(json.dumps(batch))
    if batch["failed"] or batch["unknown"] or batch["state"] == "cancelled":
        sys.exit(1)


if __name__ == "__main__":
    main()
