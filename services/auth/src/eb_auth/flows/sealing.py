"""What waits in the database waits sealed. Rule: docs/rules/identity.md, Secrets at rest."""

from __future__ import annotations

import secrets

from eb_kit.tx import Tx

from ..domain import sealing
from ..settings import settings_of


def unseal(tx: Tx, purpose: str, sealed: bytes) -> bytes:
    """Open what waited sealed in the database."""
    return sealing.unseal_any(settings_of(tx).auth_secret, purpose, sealed)


def seal(tx: Tx, purpose: str, plain: bytes) -> bytes:
    """Seal what is to wait in the database."""
    nonce = secrets.token_bytes(sealing.NONCE_BYTES)
    return sealing.seal(settings_of(tx).auth_secret[0], purpose, nonce, plain)
