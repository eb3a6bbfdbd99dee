"""How secrets lie in the database: sealed with a key that the database doesn't hold.

Rule: docs/rules/identity.md, Secrets at rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12


def derived_key(secret: str, purpose: str) -> bytes:
    """Derive the 32-byte key of one purpose from the service's secret."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret.encode())


def seal(secret: str, purpose: str, nonce: bytes, plain: bytes) -> bytes:
    """Seal bytes for a purpose (AES-256-GCM); the nonce, 12 random bytes, stands in front."""
    return nonce + AESGCM(derived_key(secret, purpose)).encrypt(nonce, plain, purpose.encode())


def unseal_any(secrets: Sequence[str], purpose: str, sealed: bytes) -> bytes:
    """Open what was sealed with one of these secrets; cryptography.exceptions.InvalidTag with none of them."""
    for secret in secrets[:-1]:
        with suppress(InvalidTag):
            return unseal(secret, purpose, sealed)
    return unseal(secrets[-1], purpose, sealed)


def unseal(secret: str, purpose: str, sealed: bytes) -> bytes:
    """Open what `seal` closed; cryptography.exceptions.InvalidTag when secret or purpose differ."""
    nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    return AESGCM(derived_key(secret, purpose)).decrypt(nonce, body, purpose.encode())
