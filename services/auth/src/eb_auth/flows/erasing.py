"""Erasing a person. Rule: docs/rules/identity.md, Audit."""

from __future__ import annotations

from eb_kit.tx import Tx

from ..store import audit, members, oidc, sessions, sign_in
from . import revoking

MOST_SESSIONS = 10_000


async def erase_person(tx: Tx, user: sign_in.User) -> int:
    """Take a person's address out of the users, invitations and audit entries; give from how many entries.

    Owner only. Sessions end and lose device and network address, providers' subjects are forgotten, and the address
    could sign in again as somebody new. The caller saw to it that no
    organisation has it as its billing address. Rule: docs/rules/identity.md, Audit.
    """
    nobody = f"erased-{user.user_id}@erased.invalid"
    await sign_in.update_user_email(tx, user.user_id, nobody)
    await members.update_invitation_email(tx, user.email, nobody)
    await sign_in.delete_code(tx, user.email)
    for session in await sessions.list_live_sessions(tx, user.user_id, None, MOST_SESSIONS):
        await revoking.end_session(tx, session, "erased")
    await sessions.update_sessions_erased(tx, user.user_id)
    bound = [f"{issuer}/{user.user_id}" for issuer in await oidc.delete_identities(tx, user.user_id)]
    return await audit.delete_personal_of(tx, "oidc_identity", bound) + await audit.delete_personal(
        tx, user.email
    )
