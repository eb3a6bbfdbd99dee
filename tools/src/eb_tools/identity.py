"""What only the database's owner does about identity: platform roles, trusted systems' credentials.

Each runs with the owner's DSN in one transaction with an actor, so that it leaves its audit entry, and leaves
its facts in auth's outbox: the auth service announces them. Rule: docs/rules/identity.md, Platform roles.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from eb_auth.app import SERVICE
from eb_auth.domain.addresses import canonical_address
from eb_auth.domain.credentials import ApiKey
from eb_auth.flows import api_keys, assisting, revoking
from eb_auth.settings import LOCAL_SECRET, Settings
from eb_auth.store import credentials, members, sign_in
from eb_contracts.errors import NotFound
from eb_kit.bus import Bus
from eb_kit.db import open_pool
from eb_kit.policy import PLATFORM_ROLES
from eb_kit.service import ServiceContext
from eb_kit.tx import Tx
from eb_tools.trouble import Trouble

ACTOR = "system:cli"
MOST_LISTED = 200


@asynccontextmanager
async def owner_context(dsn: str, env: Mapping[str, str]) -> AsyncIterator[ServiceContext]:
    """Open auth's schema as the database's owner; `env` names secret, issuer and clock."""
    context = ServiceContext(SERVICE, settings_from(dsn, env))
    context.pool = await open_pool(in_auth_schema(dsn), 1)
    try:
        context.bus = Bus(context, SERVICE.handlers)
        yield context
    finally:
        await context.pool.close()


@asynccontextmanager
async def owner_tx(dsn: str, env: Mapping[str, str]) -> AsyncIterator[Tx]:
    """Open a transaction in auth's schema as the database's owner."""
    async with owner_context(dsn, env) as context, context.begin(ACTOR) as tx:
        yield tx


def in_auth_schema(dsn: str) -> str:
    """Give the DSN with auth's search path, which its own role has by itself."""
    return f"{dsn}{'&' if '?' in dsn else '?'}search_path=auth,public"


def settings_from(dsn: str, env: Mapping[str, str]) -> Settings:
    """Give the settings that matter to a tool; the rest of a service's it doesn't need."""
    secret_file, clock_file = env.get("EB_AUTH_SECRET_FILE"), env.get("EB_CLOCK_FILE")
    if env.get("EB_ENV") == "production" and not (secret_file or env.get("EB_AUTH_SECRET")):
        raise Trouble("EB_AUTH_SECRET must be set in production, as the auth service has it.")
    return Settings.model_construct(
        eb_env="production" if env.get("EB_ENV") == "production" else "local",
        database_url=dsn,
        http_port=0,
        admin_port=0,
        amqp_url="amqp://127.0.0.1/",
        token_issuer=env.get("EB_TOKEN_ISSUER", Settings.model_fields["token_issuer"].default),
        auth_secret=tuple(
            (
                Path(secret_file).read_text() if secret_file else env.get("EB_AUTH_SECRET", LOCAL_SECRET)
            ).split()
        ),
        clock_file=Path(clock_file) if clock_file else None,
    )


async def grant_platform_role(dsn: str, email: str, role: str, env: Mapping[str, str]) -> bool:
    """Give a platform role; somebody who never signed in becomes a user. Tell whether it was new; Trouble."""
    must_be_platform_role(role)
    async with owner_tx(dsn, env) as tx:
        user = await sign_in.insert_user_once(tx, address_from(email))
        return await members.insert_platform_role_once(tx, user.user_id, role)


async def revoke_platform_role(dsn: str, email: str, role: str, env: Mapping[str, str]) -> bool:
    """Take a platform role and void the tokens that carry it; tell whether it was there. Trouble."""
    must_be_platform_role(role)
    async with owner_tx(dsn, env) as tx:
        user = await sign_in.insert_user_once(tx, address_from(email))
        was_there = await members.delete_platform_role(tx, user.user_id, role)
        if was_there:
            await revoking.void_tokens(tx, f"platform:{user.user_id}")
            await assisting.end_lost_assists(tx, user.user_id)
        return was_there


def must_be_platform_role(role: str) -> None:
    """Raise Trouble for anything but a platform role."""
    if role not in PLATFORM_ROLES:
        raise Trouble(f"{role} is none of {', '.join(sorted(PLATFORM_ROLES))}.")


def address_from(text: str) -> str:
    """Give the address in its canonical form; Trouble when it is none."""
    try:
        return canonical_address(text)
    except ValueError as error:
        raise Trouble(f"{text}: {error}.") from None


async def create_service_credential(dsn: str, name: str, env: Mapping[str, str]) -> tuple[ApiKey, str]:
    """Make a credential of a trusted system; give it with its text. Older ones of the name stay until revoked."""
    async with owner_tx(dsn, env) as tx:
        return await api_keys.create_key(tx, "service", None, api_keys.NewKey(name, (), None))


async def list_service_credentials(dsn: str, env: Mapping[str, str]) -> list[ApiKey]:
    """Give the newest credentials of trusted systems, revoked ones too."""
    async with owner_tx(dsn, env) as tx:
        return await credentials.list_service_keys(tx, MOST_LISTED)


async def revoke_service_credential(dsn: str, key_id: UUID, env: Mapping[str, str]) -> None:
    """Revoke a trusted system's credential everywhere; raises Trouble."""
    async with owner_tx(dsn, env) as tx:
        try:
            key = await credentials.lock_service_key(tx, key_id)
        except NotFound:
            raise Trouble(f"No credential {key_id} of a trusted system is here.") from None
        await api_keys.revoke_key(tx, key)


def register(subparsers: Any, owner_dsn: Callable[[], str]) -> None:
    """Enter `eb platform-role …` and `eb service-credential …`; `owner_dsn` names the database as its owner."""
    roles = _actions(subparsers, "platform-role", "give and take the platform's own staff their roles")
    for action, run, text in (
        ("grant", _grant, "give somebody a platform role"),
        ("revoke", _revoke, "take a platform role away"),
    ):
        parser = roles.add_parser(action, help=text)
        parser.add_argument("email")
        parser.add_argument("role", choices=sorted(PLATFORM_ROLES))
        _set(parser, run, owner_dsn)
    keys = _actions(subparsers, "service-credential", "credentials of trusted systems outside")
    create = keys.add_parser("create", help="make one; it is shown once")
    create.add_argument("name")
    _set(create, _create, owner_dsn)
    _set(keys.add_parser("list", help="list them, newest first"), _list, owner_dsn)
    end = keys.add_parser("revoke", help="end one")
    end.add_argument("key_id", type=UUID)
    _set(end, _end, owner_dsn)


def _actions(subparsers: Any, name: str, text: str) -> Any:
    return subparsers.add_parser(name, help=text).add_subparsers(required=True, metavar="ACTION")


Run = Callable[[argparse.Namespace, str, Mapping[str, str]], Coroutine[Any, Any, str]]


def _set(parser: argparse.ArgumentParser, run: Run, owner_dsn: Callable[[], str]) -> None:
    def do(options: argparse.Namespace) -> int:
        print(asyncio.run(run(options, owner_dsn(), os.environ)))
        return 0

    parser.set_defaults(do=do)


async def _grant(arguments: argparse.Namespace, dsn: str, env: Mapping[str, str]) -> str:
    is_new = await grant_platform_role(dsn, arguments.email, arguments.role, env)
    return f"{arguments.email} is {arguments.role}{'' if is_new else ' already'}"


async def _revoke(arguments: argparse.Namespace, dsn: str, env: Mapping[str, str]) -> str:
    was_there = await revoke_platform_role(dsn, arguments.email, arguments.role, env)
    return f"{arguments.email} is {'no longer' if was_there else 'not'} {arguments.role}"


async def _create(arguments: argparse.Namespace, dsn: str, env: Mapping[str, str]) -> str:
    _, text = await create_service_credential(dsn, arguments.name, env)
    return text


async def _list(_: argparse.Namespace, dsn: str, env: Mapping[str, str]) -> str:
    found = await list_service_credentials(dsn, env)
    return "\n".join(f"{key.key_id}  {key.name}  {'revoked' if key.revoked_at else 'live'}" for key in found)


async def _end(arguments: argparse.Namespace, dsn: str, env: Mapping[str, str]) -> str:
    await revoke_service_credential(dsn, arguments.key_id, env)
    return f"{arguments.key_id} is revoked"
