"""Signing keys and the access tokens they sign. Rule: docs/rules/identity.md, Signing keys."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidTag

from eb_contracts.ids import new_id
from eb_kit.tx import Tx

from ..domain import sealing as seals
from ..domain import tokens
from ..settings import settings_of
from ..store import credentials
from . import sealing

SIGNING_PURPOSE = "signing key"


async def access_token(tx: Tx, grant: tokens.Grant, lifetime: timedelta = tokens.TOKEN_LIFETIME) -> str:
    """Sign an access token with the key in use.

    The caller holds locks on what the roles came from, and the time is read here, after them: who revokes
    reads the time under the same locks, so no token with an old role is younger than its revocation.
    """
    clock = tx.context.clock
    stored = await credentials.get_signing_key(tx, clock.machine_now())
    private = sealing.unseal(tx, SIGNING_PURPOSE, stored.sealed_private)
    return tokens.sign(
        grant,
        tokens.SigningKey(stored.kid, private),
        issuer=settings_of(tx).token_issuer,
        issued_at=clock.machine_now(),
        token_id=new_id(),
        lifetime=lifetime,
    )


async def ensure_signing_key(tx: Tx) -> None:
    """Make the first signing key, unless there is one."""
    await credentials.lock_signing_keys(tx)
    if not await credentials.list_live_signing_keys(tx):
        await add_signing_key(tx, tx.context.clock.machine_now())


async def add_signing_key(tx: Tx, active_from: datetime) -> None:
    """Make a signing key that signs from this instant on, and announce it; the caller holds `lock_signing_keys`."""
    private = secrets.token_bytes(32)
    sealed = sealing.seal(tx, SIGNING_PURPOSE, private)
    kid = f"k-{secrets.token_hex(8)}"
    key = credentials.StoredSigningKey(kid, tokens.public_x(private), sealed, active_from, None, 1)
    await credentials.insert_signing_key(tx, key)
    await tx.announce(key.fact())


async def reseal(tx: Tx) -> int:
    """Seal anew with the secret in use the signing keys that an older one sealed; give how many."""
    count = 0
    await credentials.lock_signing_keys(tx)
    for key in await credentials.list_live_signing_keys(tx):
        try:
            seals.unseal(settings_of(tx).auth_secret[0], SIGNING_PURPOSE, key.sealed_private)
        except InvalidTag:
            private = sealing.unseal(tx, SIGNING_PURPOSE, key.sealed_private)
            await credentials.update_signing_key_sealed(
                tx, key.kid, sealing.seal(tx, SIGNING_PURPOSE, private)
            )
            count += 1
    return count
