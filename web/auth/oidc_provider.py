"""An OpenID Connect provider: where it lets people sign in, and who it says somebody is. No decision about accounts.

Authorization code flow with PKCE and a nonce. What the provider publishes is kept for a while. Every trouble with it is
a ProviderError, whose words hold no code, token or secret.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from config.settings import Settings
from schemas.errors import printable

_TIMEOUT_SECONDS: Final = 5.0
_KEPT_SECONDS: Final = 600.0
#: So long it is not asked again for what it publishes, after it could not be had.
_AWAY_SECONDS: Final = 10.0
#: Of the threads that answer requests, so few wait for it at a time.
AT_ONCE: Final = 4
#: Clocks differ a little.
_LEEWAY_SECONDS: Final = 60
#: By the provider's own keys only: never by a secret that others have, too, and never unsigned.
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")


class ProviderError(Exception):
    """It cannot be reached, does not behave, or says no."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is, as the provider says."""

    email: str
    is_verified: bool


@dataclass(frozen=True, slots=True)
class _Published:
    document: dict[str, Any]
    keys: KeySet
    at: float


class Provider:
    """The provider of these settings. Fit for threads."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        assert settings.oidc_issuer is not None
        assert settings.oidc_client_secret is not None
        self._issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id or ""
        self._client_secret = settings.oidc_client_secret.get_secret_value()
        self._redirect_uri = f"{settings.base_url}/sign-in/callback"
        self._monotonic = monotonic
        self._published: _Published | None = None
        self._away_until: float | None = None
        self._calls = threading.BoundedSemaphore(AT_ONCE)

    def sign_in_address(self, *, state: str, nonce: str, verifier: str) -> str:
        """Where to send somebody. ProviderError."""
        document = self._look_up().document
        with _worded(), self._client(document) as client:
            address, _ = client.create_authorization_url(
                document["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
            )
        return str(address)

    def identify(self, *, code: str, nonce: str, verifier: str) -> Identity:
        """Who came back with this code, for which these were sent along. ProviderError."""
        document = self._look_up().document
        with _worded(), self._client(document) as client:
            with self._call():
                answer = client.fetch_token(document["token_endpoint"], code=code, code_verifier=verifier)
            claims = self._claims(answer["id_token"], document["issuer"])
            given = claims.get("nonce")
            if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
                raise ProviderError("the nonce of the ID token is another one")
            if claims.get("azp", self._client_id) != self._client_id:
                raise ProviderError("the ID token is for another client")
            email = claims.get("email")
            if not isinstance(email, str):
                raise ProviderError("the ID token holds no e-mail address")
            return Identity(email, claims.get("email_verified") is True)

    def _claims(self, token: str, issuer: str) -> dict[str, Any]:
        try:
            claims = jwt.decode(token, self._look_up().keys, algorithms=_ALGORITHMS).claims
        except InvalidKeyIdError:
            # It has new keys.
            claims = jwt.decode(token, self._look_up(anew=True).keys, algorithms=_ALGORITHMS).claims
        JWTClaimsRegistry(
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": self._client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        ).validate(claims)
        return claims

    def _look_up(self, *, anew: bool = False) -> _Published:
        found = self._published
        if found is None or anew or self._monotonic() - found.at > _KEPT_SECONDS:
            if self._away_until is not None and self._monotonic() < self._away_until:
                raise ProviderError("it was of no use a moment ago")
            with self._call():
                try:
                    with _worded(), httpx.Client(timeout=_TIMEOUT_SECONDS) as client:
                        found = self._fetch(client)
                except ProviderError:
                    self._away_until = self._monotonic() + _AWAY_SECONDS
                    raise
            # Without a lock: two threads may both ask, but none waits for another that waits for the provider.
            self._published = found
        return found

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Around whatever waits for the provider."""
        if not self._calls.acquire(blocking=False):
            raise ProviderError("too many wait for it already")
        try:
            yield
        finally:
            self._calls.release()

    def _fetch(self, client: httpx.Client) -> _Published:
        document = _object(client.get(f"{self._issuer}/.well-known/openid-configuration"))
        if str(document["issuer"]).rstrip("/") != self._issuer:
            raise ProviderError("its discovery document is about another issuer")
        keys = KeySet.import_key_set(_object(client.get(document["jwks_uri"])))  # type: ignore[arg-type] # it checks
        return _Published(document, keys, self._monotonic())

    def _client(self, document: dict[str, Any]) -> Any:
        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return OAuth2Client(
            client_id=self._client_id,
            client_secret=self._client_secret,
            token_endpoint_auth_method="client_secret_basic"
            if "client_secret_basic" in methods
            else "client_secret_post",
            scope="openid email",
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
            timeout=_TIMEOUT_SECONDS,
        )


def _object(answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    found = answer.json()
    if not isinstance(found, dict):
        raise ProviderError("it answers what is no JSON object")
    return found


@contextmanager
def _worded() -> Iterator[None]:
    """What libraries raise, as one error. What the provider said in its own words may quote what it was sent."""
    try:
        yield
    except ProviderError:
        raise
    except OAuthError as error:
        raise ProviderError(f"it says no: {printable(str(error.error))[:60]}") from None
    except httpx.HTTPStatusError as error:
        raise ProviderError(f"it answers with status {error.response.status_code}") from None
    except httpx.HTTPError as error:
        raise ProviderError(f"it cannot be reached: {type(error).__name__}") from None
    except JoseError as error:
        raise ProviderError(f"its ID token does not hold: {printable(str(error))[:120]}") from None
    except (KeyError, TypeError, ValueError, AttributeError, httpx.InvalidURL) as error:
        raise ProviderError(f"it answers what cannot be understood: {type(error).__name__}") from None
