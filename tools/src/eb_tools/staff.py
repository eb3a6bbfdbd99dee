"""Tokens of the platform's own staff for a local run, as one JSON document on stdout.

A program of its own, so that the supervisor needn't load the auth service. DATABASE_URL is the owner's; the rest
is the auth service's environment. `--service NAME` also makes a trusted system's credential.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import replace

from eb_auth.domain.tokens import STAFF_TOKEN_LIFETIME, Grant
from eb_auth.flows import signing, signing_in
from eb_auth.store import members, sessions, sign_in
from eb_kit.tx import Tx
from eb_tools import identity
from eb_tools.trouble import Trouble

STAFF_DOMAIN = "staff.event-builder.local"
ROLES = {"operator_token": "Operator", "finance_token": "Finance", "support_token": "Support"}


async def mint_staff_token(dsn: str, role: str, env: Mapping[str, str] | None = None) -> str:
    """Give an access token of platform staff that lives 12 h, with user, role and session behind it.

    For local runs only: raises Trouble with EB_ENV=production. `env` (the auth service's environment) names
    secret, issuer and clock; without it the defaults of a local run hold.
    """
    env = env or {}
    if env.get("EB_ENV", "local") != "local":
        raise Trouble("Staff tokens of twelve hours exist in local runs only.")
    identity.must_be_platform_role(role)
    async with identity.owner_tx(dsn, env) as tx:
        return await _staff_token(tx, role)


async def _staff_token(tx: Tx, role: str) -> str:
    await signing.ensure_signing_key(tx)
    user = await sign_in.insert_user_once(tx, f"{role.lower()}@{STAFF_DOMAIN}")
    await members.insert_platform_role_once(tx, user.user_id, role)
    session = signing_in.new_session(tx, user.user_id, None, signing_in.Device("eb", "127.0.0.1"))
    session = replace(session, expires_at=tx.now + STAFF_TOKEN_LIFETIME)
    await sessions.insert_session(tx, session)
    ends = tx.context.clock.machine_now() + STAFF_TOKEN_LIFETIME
    grant = Grant(user.user_id, session.session_id, None, (role,), signed_in_at=ends)
    return await signing.access_token(tx, grant, STAFF_TOKEN_LIFETIME)


async def mint(dsn: str, service: str | None) -> dict[str, str]:
    """Make a token per role, and the credential of a trusted system if one is named."""
    tokens = {name: await mint_staff_token(dsn, role, os.environ) for name, role in ROLES.items()}
    if service is not None:
        _, tokens["service_token"] = await identity.create_service_credential(dsn, service, os.environ)
    return tokens


def main() -> None:
    """Print the tokens."""
    parser = argparse.ArgumentParser(prog="python -m eb_tools.staff", description=__doc__)
    parser.add_argument("--service", metavar="NAME")
    tokens = asyncio.run(mint(os.environ["DATABASE_URL"], parser.parse_args().service))
    print(json.dumps(tokens))


if __name__ == "__main__":
    main()
