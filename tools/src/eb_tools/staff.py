"""Tokens of the platform's own staff for a local run, as one JSON document on stdout.

A program of its own, so that the supervisor needn't load the auth service. DATABASE_URL is the owner's; the rest
is the auth service's environment. `--service NAME` also makes a trusted system's credential.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os

from eb_tools import identity

ROLES = {"operator_token": "Operator", "finance_token": "Finance", "support_token": "Support"}


async def mint(dsn: str, service: str | None) -> dict[str, str]:
    """Make a token per role, and the credential of a trusted system if one is named."""
    tokens = {name: await identity.mint_staff_token(dsn, role, os.environ) for name, role in ROLES.items()}
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
