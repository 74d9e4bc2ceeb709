"""An OpenID Connect provider for tests, over HTTP: it checks what a real one checks, and can be made to misbehave."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import uvicorn
from fastapi import FastAPI, Form, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from embedded import ports
from tests.acceptance.processes import eventually

CLIENT_ID = "bidden-admin"
CLIENT_SECRET = "geheim-with-the-provider/+%"


class FakeProvider:
    """`claims` overrides what its ID tokens say; None leaves a claim out. `codes` were given out and not used.

    It takes its time while `answers` is not set.
    """

    def __init__(self, issuer: str, redirect_uri: str) -> None:
        self.issuer = issuer
        self.redirect_uri = redirect_uri
        self.claims: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.secrets: list[str] = []
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        self.auth_methods = ["client_secret_basic", "client_secret_post"]
        self.renew_keys()
        self.signs_with = self.key
        self.app = self._application()

    def renew_keys(self) -> None:
        """A new key, published and signed with."""
        self.key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"}, private=True)
        self.signs_with = self.key

    def _application(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.get("/.well-known/openid-configuration")
        def discover() -> Any:
            self.asked.append("discovery")
            self.answers.wait()
            return {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "token_endpoint_auth_methods_supported": self.auth_methods,
            }

        @app.get("/keys")
        def keys() -> Any:
            self.asked.append("keys")
            return KeySet([self.key]).as_dict(private=False)

        @app.get("/authorize")
        def authorize(request: Request) -> Response:
            query = dict(request.query_params)
            expected = {
                "client_id": CLIENT_ID,
                "response_type": "code",
                "redirect_uri": self.redirect_uri,
                "code_challenge_method": "S256",
            }
            if any(query.get(name) != value for name, value in expected.items()) or len(query.get("nonce", "")) < 40:
                return JSONResponse({"error": "invalid_request"}, status_code=400)
            if "openid" not in query["scope"].split() or "email" not in query["scope"].split():
                return JSONResponse({"error": "invalid_scope"}, status_code=400)
            code = secrets.token_urlsafe(24)
            self.codes[code] = query
            self.secrets += [code, query["state"], query["nonce"]]
            return RedirectResponse(f"{self.redirect_uri}?{urlencode({'code': code, 'state': query['state']})}", 302)

        @app.post("/token")
        def token(
            request: Request,
            code: str = Form(),
            code_verifier: str = Form(),
            redirect_uri: str = Form(),
            grant_type: str = Form(),
            client_id: str = Form(""),
            client_secret: str = Form(""),
        ) -> Response:
            self.secrets.append(code_verifier)
            if not self._knows(request.headers.get("authorization", ""), client_id, client_secret):
                return JSONResponse({"error": "invalid_client", "error_description": code}, status_code=401)
            begun = self.codes.pop(code, None)
            challenge = base64.urlsafe_b64encode(hashlib.sha256(code_verifier.encode()).digest()).rstrip(b"=").decode()
            if (
                begun is None
                or begun["code_challenge"] != challenge
                or (redirect_uri, grant_type) != (self.redirect_uri, "authorization_code")
            ):
                return JSONResponse({"error": "invalid_grant", "error_description": code}, status_code=400)
            id_token = self._id_token(begun["nonce"])
            self.secrets.append(id_token)
            return JSONResponse({"access_token": "unused", "token_type": "Bearer", "id_token": id_token})

        return app

    def _knows(self, authorization: str, client_id: str, client_secret: str) -> bool:
        if "client_secret_basic" in self.auth_methods:
            return authorization == "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        return (client_id, client_secret) == (CLIENT_ID, CLIENT_SECRET)

    def _id_token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": "4711",
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            "email": "Olga@bidden.example",
            "email_verified": True,
            **self.claims,
        }
        known = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": self.signs_with.kid}, known, self.signs_with)


@contextmanager
def running_provider(redirect_uri: str) -> Iterator[FakeProvider]:
    """One on a port of its own, while it lasts."""
    port = ports.choose({"provider": None}, {})["provider"]
    provider = FakeProvider(f"http://127.0.0.1:{port}", redirect_uri)
    config = uvicorn.Config(provider.app, host="127.0.0.1", port=port, ws="none", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, "the provider answers")
        yield provider
    finally:
        server.should_exit = True
        thread.join()
