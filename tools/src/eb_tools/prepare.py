"""Bring a database and a broker to what the services expect: migrations, the roles' passwords, the topology.

`python -m eb_tools.prepare` reads DATABASE_URL (the owner's), RABBITMQ_ADMIN_URL, EB_AMQP_VHOST and
EB_SERVICE_PASSWORDS (JSON: service name to password, for its database role and its broker user alike). Both
addresses are to speak TLS, unless EB_NETWORK_ENCRYPTS=true, as for the services. It may run again at any time;
compose and Kubernetes do so at each start.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

import asyncpg

from eb_kit import topology
from eb_kit.settings import is_verified
from eb_tools import migrate
from eb_tools.names import NAMES, role_of
from eb_tools.trouble import Trouble


async def set_role_passwords(owner_dsn: str, passwords: Mapping[str, str]) -> None:
    """Let each service's role sign in with its password; the roles are made by the migrations."""
    connection = await asyncpg.connect(owner_dsn)
    try:
        for service, password in passwords.items():
            quoted = await connection.fetchval("SELECT quote_literal($1::text)", password)
            await connection.execute(f"ALTER ROLE {role_of(service)} LOGIN PASSWORD {quoted}")
    finally:
        await connection.close()


def read_passwords(text: str) -> dict[str, str]:
    """Read the passwords; Trouble names services that aren't ours or are missing."""
    try:
        passwords = {str(name): str(value) for name, value in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise Trouble("EB_SERVICE_PASSWORDS isn't a JSON object of service names and passwords.") from error
    if wrong := set(NAMES) ^ set(passwords):
        raise Trouble(f"EB_SERVICE_PASSWORDS must name each service once; see {', '.join(sorted(wrong))}.")
    return passwords


def must_speak_tls(environ: Mapping[str, str]) -> None:
    """Raise Trouble where the owner's or the broker administrator's password would travel openly."""
    if environ.get("EB_NETWORK_ENCRYPTS", "").lower() == "true":
        return
    if not is_verified(environ["DATABASE_URL"]):
        raise Trouble("DATABASE_URL must say sslmode=verify-full, unless EB_NETWORK_ENCRYPTS=true.")
    if urlsplit(environ["RABBITMQ_ADMIN_URL"]).scheme != "https":
        raise Trouble("RABBITMQ_ADMIN_URL must begin with https:, unless EB_NETWORK_ENCRYPTS=true.")


async def prepare(owner_dsn: str, admin_url: str, vhost: str, passwords: Mapping[str, str]) -> None:
    """Set passwords and topology on a migrated database and a broker."""
    await set_role_passwords(owner_dsn, passwords)
    await topology.apply(admin_url, vhost, passwords)


def main() -> int:
    """Do it all; status 1 with a sentence when a setting is missing."""
    missing = [
        n for n in ("DATABASE_URL", "RABBITMQ_ADMIN_URL", "EB_SERVICE_PASSWORDS") if n not in os.environ
    ]
    if missing:
        print(f"{missing[0]} must be set", file=sys.stderr)
        return 1
    try:
        must_speak_tls(os.environ)
        passwords = read_passwords(os.environ["EB_SERVICE_PASSWORDS"])
        migrate.migrate("upgrade", migrate.HEAD)
        vhost = os.environ.get("EB_AMQP_VHOST", "/")
        asyncio.run(prepare(os.environ["DATABASE_URL"], os.environ["RABBITMQ_ADMIN_URL"], vhost, passwords))
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
