"""The OpenID Connect provider: where users sign in, and the identity that it vouches for. Knows no accounts.

authlib's Starlette client does the protocol: discovery, state, nonce, PKCE, the provider's keys and the validation of
ID tokens. Here are a throttle around it, a maximum age of the metadata, and the checks that authlib leaves to its
caller. Every failure is a ProviderError, whose text holds no code, token or secret.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from authlib.integrations.starlette_client import OAuth, OAuthError
from joserfc.errors import JoseError

from config.settings import Settings
from schemas.errors import printable
from schemas.text import is_storable
from web.auth import tokens

_TIMEOUT_SECONDS: Final = 5.0
#: How long metadata and keys are cached: a provider that withdraws a key expects it to be refused soon.
_CACHE_SECONDS: Final = 600.0
#: How long discovery is not tried again after it has failed.
_BACKOFF_SECONDS: Final = 10.0
#: Requests that may wait for the provider at the same time.
MAX_WAITING: Final = 4
#: Tolerated difference between the provider's clock and ours.
_LEEWAY_SECONDS: Final = 60
#: Asymmetric only, whatever the provider announces: neither unsigned, nor signed with the secret that we share.
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
#: OpenID Connect Core 8.
_MAX_SUBJECT: Final = 255
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri")

# At debug level authlib logs the PKCE verifier.
logging.getLogger("authlib").setLevel(logging.INFO)


class ProviderError(Exception):
    """The provider cannot be reached, misbehaves, or refuses."""


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """The URL at the provider to redirect a user to, and what the callback is checked against."""

    url: str
    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who has signed in, according to the provider: `subject` is who they are to it for ever, of this `issuer`."""

    issuer: str
    subject: str
    email: str
    is_verified: bool


class Provider:
    """The provider of these settings. May be shared by event loops and threads."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        assert settings.oidc_issuer is not None
        assert settings.oidc_client_secret is not None
        self._issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id or ""
        self._client_secret = settings.oidc_client_secret.get_secret_value()
        self._redirect_uri = f"{settings.base_url}/sign-in/callback"
        self._monotonic = monotonic
        # One for all calls: authlib makes an HTTP client for each, and the event loop would load the CAs every time.
        self._tls = httpx2.create_ssl_context()
        self._client: Any = None
        self._discovered_at = 0.0
        self._retry_at: float | None = None
        self._slots = threading.BoundedSemaphore(MAX_WAITING)

    async def authorization_request(self) -> AuthorizationRequest:
        """A new one: each user gets their own. ProviderError."""
        client = await self._discovered()
        with _translated():
            # authlib's own nonce has 119 bits.
            made = await client.create_authorization_url(self._redirect_uri, nonce=tokens.new_token())
            return AuthorizationRequest(made["url"], made["state"], made["nonce"], made["code_verifier"])

    async def identify(self, *, code: str, nonce: str, verifier: str) -> Identity:
        """The user to whom the provider gave this code, for that authorization request. ProviderError."""
        client = await self._discovered()
        with self._slot(), _translated():
            token = await client.fetch_access_token(self._redirect_uri, code=code, code_verifier=verifier)
            claims = await self._validated(client, token, nonce)
            if "email" not in claims and "userinfo_endpoint" in client.server_metadata:
                # Providers need not repeat in the ID token what an access token gets from there (OpenID Connect
                # Core 5.4). The subject must be the same (5.3.2).
                userinfo = await client.userinfo(token=token)
                if userinfo["sub"] != claims["sub"]:
                    raise ProviderError("its userinfo is about another subject than the ID token")
                claims = userinfo
            subject, email = claims.get("sub"), claims.get("email")
            if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT or not is_storable(subject):
                raise ProviderError("it names no subject")
            if not isinstance(email, str):
                raise ProviderError("it names no e-mail address")
            return Identity(self._issuer, subject, email, claims.get("email_verified") is True)

    async def _validated(self, client: Any, token: Any, nonce: str) -> Any:
        # authlib validates signature, times, nonce and azp. The audience is left to its caller: without this option an
        # ID token for another client would pass if its azp named us.
        options = {
            "iss": {"essential": True, "value": client.server_metadata["issuer"]},
            "aud": {"essential": True, "value": self._client_id},
        }
        claims = await client.parse_id_token(token, nonce=nonce, claims_options=options, leeway=_LEEWAY_SECONDS)
        if claims is None:
            raise ProviderError("its answer holds no ID token")
        return claims

    async def _discovered(self) -> Any:
        """authlib's client, with metadata and keys from the cache or from the provider."""
        client = self._client
        if client is not None and self._monotonic() - self._discovered_at <= _CACHE_SECONDS:
            return client
        if self._retry_at is not None and self._monotonic() < self._retry_at:
            raise ProviderError(f"discovery failed less than {_BACKOFF_SECONDS:.0f} s ago")
        with self._slot():
            try:
                with _translated():
                    client = await self._discover()
            except ProviderError:
                self._retry_at = self._monotonic() + _BACKOFF_SECONDS
                raise
        # Without a lock: two requests may both discover, but none waits for another that waits for the provider.
        self._client, self._discovered_at = client, self._monotonic()
        return client

    async def _discover(self) -> Any:
        url = f"{self._issuer}/.well-known/openid-configuration"
        document = await self._register(server_metadata_url=url).load_server_metadata()
        # authlib does not compare them.
        if str(document["issuer"]).rstrip("/") != self._issuer:
            raise ProviderError("its discovery document names another issuer")
        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        # No more of the document than is used: authlib passes all of it as options to its HTTP client.
        client = self._register(
            issuer=document["issuer"],
            id_token_signing_alg_values_supported=_ALGORITHMS,
            token_endpoint_auth_method="client_secret_basic"
            if "client_secret_basic" in methods
            else "client_secret_post",
            **{name: document[name] for name in _ENDPOINTS if name in document},
        )
        await client.fetch_jwk_set()
        return client

    def _register(self, **metadata: Any) -> Any:
        return OAuth().register(
            "provider",
            client_id=self._client_id,
            client_secret=self._client_secret,
            client_kwargs={
                "scope": "openid email",
                "code_challenge_method": "S256",
                "timeout": _TIMEOUT_SECONDS,
                "verify": self._tls,
            },
            **metadata,
        )

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Around whatever waits for the provider."""
        if not self._slots.acquire(blocking=False):
            raise ProviderError(f"{MAX_WAITING} requests wait for it already")
        try:
            yield
        finally:
            self._slots.release()


@contextmanager
def _translated() -> Iterator[None]:
    """Turns what libraries raise into a ProviderError. Not with the provider's own text, which may quote a secret."""
    try:
        yield
    except OAuthError as error:
        raise ProviderError(f"it refuses: {printable(str(error.error))[:60]}") from None
    except httpx2.HTTPStatusError as error:
        raise ProviderError(f"it answers with status {error.response.status_code}") from None
    except httpx2.HTTPError as error:
        raise ProviderError(f"it cannot be reached: {type(error).__name__}") from None
    except JoseError as error:
        raise ProviderError(f"its ID token is invalid: {printable(str(error))[:120]}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, httpx2.InvalidURL) as error:
        raise ProviderError(f"its answer is malformed: {type(error).__name__}") from None
