"""Ending assist sessions and voiding their tokens. Rule: docs/rules/identity.md, Assist sessions."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from eb_kit.tx import Tx

from ..domain.assist import AssistSession
from ..store import assist
from . import revoking


async def end_assist(tx: Tx, session: AssistSession) -> AssistSession:
    """End a locked assist session and void its token."""
    ended = {"status": "ended", "ended_by": tx.actor, "ended_at": tx.now}
    await _void_assists(tx, [session.assist_session_id])
    return await assist.update_assist(tx, session.assist_session_id, ended)


async def end_assists_in(tx: Tx, org_id: UUID) -> None:
    """End all assist sessions in an organisation that wants no more of them."""
    await _void_assists(tx, await assist.update_org_ended(tx, org_id))


async def end_lost_assists(tx: Tx, user_id: UUID) -> None:
    """End a helper's assist sessions whose role is gone."""
    await _void_assists(tx, await assist.update_lost_of_user(tx, user_id))


async def _void_assists(tx: Tx, assist_session_ids: Sequence[UUID]) -> None:
    for assist_session_id in assist_session_ids:
        await revoking.void_tokens(tx, f"assist:{assist_session_id}")
