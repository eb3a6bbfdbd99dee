"""Ending sessions and voiding tokens, everywhere. Rule: docs/rules/identity.md, Sessions and tokens."""

from __future__ import annotations

import structlog

from eb_kit.tx import Tx

from ..domain.sessions import Session
from ..store import assist, sessions

log = structlog.get_logger(__name__)


async def end_session(tx: Tx, session: Session, reason: str) -> None:
    """End a locked session and everything it issued; a session that has ended stays as it is."""
    if session.revoked_at is None:
        log.info("session ended", session_id=str(session.session_id), actor=tx.actor, reason=reason)
        await sessions.update_session_revoked(tx, session.session_id, reason)
        await assist.update_session_ended(tx, session.session_id)
        await void_tokens(tx, f"session:{session.session_id}")


async def void_tokens(tx: Tx, subject_key: str) -> None:
    """Make access tokens about a subject void that were issued up to now; the caller holds the subject's lock."""
    fact = await sessions.insert_revocation(tx, subject_key, tx.context.clock.machine_now())
    await tx.announce(fact)
