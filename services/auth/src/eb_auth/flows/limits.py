"""Attempts of a minute, counted. Rule: docs/rules/identity.md, Signing in."""

from __future__ import annotations

import hashlib

from eb_kit.tx import Tx

from ..domain.errors import TooManyAttempts
from ..settings import settings_of
from ..store import sign_in

PER_ADDRESS = 5
PER_NETWORK_ADDRESS = 30
ORGS_PER_USER = 60
INVITATIONS_PER_USER = 60


async def count(tx: Tx, action: str, subject: str, most: int) -> None:
    """Count an attempt of a subject (mail address, network address, user); raises TooManyAttempts over `most` a minute.

    Subjects are kept as hashes: the table of attempts names nobody.
    """
    if not settings_of(tx).has_limits:
        return
    now = tx.context.clock.machine_now()
    bucket = hashlib.sha256(f"{action}\n{subject}".encode()).digest()
    if await sign_in.count_attempt(tx, bucket, now.replace(second=0, microsecond=0)) > most:
        raise TooManyAttempts(retry_after_s=60 - now.second)


async def count_sign_in(tx: Tx, action: str, email: str, address: str) -> None:
    """Count one step of a sign-in against the mail address and the network address; raises TooManyAttempts."""
    await count(tx, action, f"mail {email}", PER_ADDRESS)
    await count(tx, action, f"net {address}", PER_NETWORK_ADDRESS)
