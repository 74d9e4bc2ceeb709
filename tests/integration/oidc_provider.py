"""An OpenID Connect provider for tests, over HTTP: it validates what a real one validates, and can misbehave."""

from __future__ import annotations

import base64
import hashlib
import json
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
from joserfc.jwk import KeySet, OctKey, RSAKey

from embedded import ports
from tests.acceptance.processes import eventually

CLIENT_ID = "bidden-admin"
CLIENT_SECRET = "geheim-with-the-provider/+%"


class FakeProvider:
    """`claims` overrides claims of its ID tokens; None omits a claim. `codes` were issued and not redeemed.

    With `userinfo` it announces a userinfo endpoint that returns these claims. `algorithm` and `signing_key` sign ID
    tokens. Discovery blocks while `is_answering` is not set. `requests` records what was fetched, `secrets` what must
    be in no log.
    """

    def __init__(self, issuer: str, redirect_uri: str) -> None:
        self.issuer = issuer
        self.redirect_uri = redirect_uri
        self.claims: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.secrets: list[str] = []
        self.requests: list[str] = []
        self.is_answering = threading.Event()
        self.is_answering.set()
        self.userinfo: dict[str, Any] | None = None
        self.algorithm = "RS256"
        self.auth_methods = ["client_secret_basic", "client_secret_post"]
        self.rotate_keys()
        self.app = self._application()

    def rotate_keys(self) -> None:
        """Publishes another key, and signs with it."""
        self.key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"}, private=True)
        self.signing_key: RSAKey | OctKey = self.key

    def _application(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.get("/.well-known/openid-configuration")
        def discover() -> Any:
            self.requests.append("discovery")
            self.is_answering.wait()
            userinfo = {} if self.userinfo is None else {"userinfo_endpoint": f"{self.issuer}/userinfo"}
            return {
                **userinfo,
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "token_endpoint_auth_methods_supported": self.auth_methods,
                "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"],
            }

        @app.get("/keys")
        def keys() -> Any:
            self.requests.append("keys")
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
            if not self._is_client(request.headers.get("authorization", ""), client_id, client_secret):
                return JSONResponse({"error": "invalid_client", "error_description": code}, status_code=401)
            authorization = self.codes.pop(code, None)
            challenge = base64.urlsafe_b64encode(hashlib.sha256(code_verifier.encode()).digest()).rstrip(b"=").decode()
            if (
                authorization is None
                or authorization["code_challenge"] != challenge
                or (redirect_uri, grant_type) != (self.redirect_uri, "authorization_code")
            ):
                return JSONResponse({"error": "invalid_grant", "error_description": code}, status_code=400)
            id_token = self._id_token(authorization["nonce"])
            self.secrets.append(id_token)
            access_token = secrets.token_urlsafe(24)
            self.secrets.append(access_token)
            return JSONResponse({"access_token": access_token, "token_type": "Bearer", "id_token": id_token})

        @app.get("/userinfo")
        def userinfo(request: Request) -> Response:
            self.requests.append("userinfo")
            if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.secrets:
                return JSONResponse({"error": "invalid_token"}, status_code=401)
            return JSONResponse(self.userinfo)

        return app

    def _is_client(self, authorization: str, client_id: str, client_secret: str) -> bool:
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
        given = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": self.algorithm, "kid": self.signing_key.kid}
        if self.algorithm == "none":
            parts = (json.dumps(part).encode() for part in (header, given))
            return "".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() + "." for part in parts)
        return jwt.encode(header, given, self.signing_key, algorithms=[self.algorithm])


@contextmanager
def running_provider(redirect_uri: str) -> Iterator[FakeProvider]:
    """Runs a provider on a port of its own."""
    port = ports.choose({"provider": None}, {})["provider"]
    provider = FakeProvider(f"http://127.0.0.1:{port}", redirect_uri)
    config = uvicorn.Config(provider.app, host="127.0.0.1", port=port, ws="none", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, "the provider is up")
        yield provider
    finally:
        server.should_exit = True
        thread.join()
