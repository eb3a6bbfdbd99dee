"""Sign-in with an OpenID Connect provider: the authorization code flow with PKCE, state and nonce.

Sources: OpenID Connect Core 1.0 (3.1.2, 3.1.3.7), RFC 7636, RFC 9700. Rule: docs/rules/identity.md, OpenID Connect.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

import jwt

from .addresses import canonical_address
from .codes import challenge_of
from .errors import EmailNotVerified, OidcRefused
from .sessions import Proof

ATTEMPT_LIFETIME = timedelta(minutes=10)
LEEWAY_S = 60
LONGEST_WORD = 200
MOST_METHODS = 20
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
"""Asymmetric only: with HMAC, whoever knows the client's secret could write tokens."""
REQUIRED = ("iss", "sub", "aud", "exp", "iat", "nonce")


class Attempt(NamedTuple):
    """A sign-in under way. `state` and `browser` come back from outside; nonce and verifier never leave before.

    It began at `started_at` (Unix seconds, the machine's clock) and asked for a sign-in not older than `max_age_s`
    then; `is_strict`: because the client said so, and so the provider has to tell.
    """

    provider: str
    nonce: str
    verifier: str
    browser_sha256: bytes
    expires_at: datetime
    started_at: float
    max_age_s: int
    is_strict: bool

    def __repr__(self) -> str:
        return f"Attempt({self.provider!r})"


@dataclass(frozen=True, slots=True)
class Discovered:
    """What a provider says about itself (OpenID Connect Discovery 1.0)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    takes_basic: bool


class Wishes(NamedTuple):
    """What the provider's settings ask of each sign-in there, beside its age."""

    client_id: str
    acr_values: tuple[str, ...] = ()
    prompt: tuple[str, ...] = ()


class Identity(NamedTuple):
    """Who a provider says has signed in; the address is verified by it."""

    issuer: str
    subject: str
    email: str


def sha256(text: str) -> bytes:
    """Give what is kept of a value that has enough chance in it by itself."""
    return hashlib.sha256(text.encode()).digest()


def is_same_browser(attempt: Attempt, cookie: str) -> bool:
    """Tell whether the browser that comes back is the one that started."""
    return hmac.compare_digest(attempt.browser_sha256, sha256(cookie))


def authorization_url(at: Discovered, wishes: Wishes, redirect_uri: str, state: str, attempt: Attempt) -> str:
    """Give the address to which the browser is sent. `max_age` always goes along: only then is `auth_time` due."""
    asked = {
        "response_type": "code",
        "scope": "openid email",
        "client_id": wishes.client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "nonce": attempt.nonce,
        "code_challenge": challenge_of(attempt.verifier),
        "code_challenge_method": "S256",
        "max_age": str(attempt.max_age_s),
        "acr_values": " ".join(wishes.acr_values),
        "prompt": " ".join(wishes.prompt),
    }
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"{at.authorization_endpoint}{'&' if '?' in at.authorization_endpoint else '?'}{query}"


def key_for(token: str, keys: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Find the key that a token names; None if it isn't among these. Raises OidcRefused for what is no token."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise OidcRefused from None
    if header.get("alg") not in ALGORITHMS:
        raise OidcRefused
    fitting = [key for key in keys if key.get("kty") != "oct" and key.get("use", "sig") == "sig"]
    if "kid" not in header and len(fitting) == 1:
        return fitting[0]
    return next((key for key in fitting if "kid" in header and key.get("kid") == header["kid"]), None)


def read_id_token(
    token: str, key: Mapping[str, Any], at: Discovered, client_id: str, nonce: str
) -> dict[str, Any]:
    """Give the claims of an ID token that was made by this provider, for us and for this attempt.

    Raises OidcRefused, whatever is wrong.
    """
    try:
        algorithm = jwt.get_unverified_header(token)["alg"]
        claims: dict[str, Any] = jwt.decode(
            token,
            jwt.PyJWK.from_dict(dict(key), algorithm).key,
            algorithms=[algorithm],
            audience=client_id,
            issuer=at.issuer,
            leeway=LEEWAY_S,
            options={"require": list(REQUIRED)},
        )
    except (jwt.PyJWTError, TypeError):
        raise OidcRefused from None
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    is_for_us = claims.get("azp", client_id) == client_id and (len(audiences) == 1 or "azp" in claims)
    if not is_for_us or not hmac.compare_digest(str(claims["nonce"]), nonce):
        raise OidcRefused
    return claims


def identity_of(claims: Mapping[str, Any], trusted_domains: Iterable[str]) -> Identity:
    """Give who signed in; raises EmailNotVerified where the provider doesn't vouch for an address, or may not.

    With `trusted_domains` a provider's word counts for addresses there only.
    """
    if claims.get("email_verified") is not True or not isinstance(claims.get("email"), str):
        raise EmailNotVerified
    try:
        email = canonical_address(claims["email"])
    except ValueError:
        raise EmailNotVerified from None
    domains = tuple(trusted_domains)
    if domains and email.rpartition("@")[2] not in domains:
        raise EmailNotVerified
    return Identity(claims["iss"], str(claims["sub"]), email)


def proof_of(claims: Mapping[str, Any], attempt: Attempt, now: float) -> Proof:
    """Give what a provider says about when and how its user signed in; `now` in Unix seconds, the machine's clock.

    Raises OidcRefused for a sign-in that is older than was asked or lies in the future, and for one of unknown age
    where the client asked for a recent one. Strength that isn't told in the standard's form counts as not told.
    """
    told = claims.get("auth_time")
    if told is None and attempt.is_strict:
        raise OidcRefused
    acr, amr = claims.get("acr"), claims.get("amr")
    return Proof(
        provider=attempt.provider,
        auth_time=None if told is None else _auth_time(told, attempt, now),
        acr=acr if _is_word(acr) else None,
        amr=tuple(filter(_is_word, amr[:MOST_METHODS])) if isinstance(amr, list) else (),
    )


def _auth_time(told: object, attempt: Attempt, now: float) -> datetime:
    """Give `auth_time` as an instant; a minute of the provider's clock is borne both ways.

    What lies ahead buys nothing: nobody signed in later than their session began.
    """
    earliest = attempt.started_at - attempt.max_age_s - LEEWAY_S
    if isinstance(told, bool) or not isinstance(told, int | float):
        raise OidcRefused
    if not earliest <= told <= now + LEEWAY_S:
        raise OidcRefused
    return datetime.fromtimestamp(told, UTC)


def _is_word(told: object) -> bool:
    return isinstance(told, str) and 0 < len(told) <= LONGEST_WORD and told.isprintable()
