"""What the database's owner does about the audit: prove every chain, and erase a person from it.

Rule: docs/rules/identity.md, Audit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from eb_auth.domain.audit import HEADS, PLATFORM, Problem
from eb_auth.flows import auditing, erasing
from eb_auth.store import audit, orgs, sign_in
from eb_kit.service import ServiceContext
from eb_tools.identity import ACTOR, address_from, owner_context, owner_tx, settings_from
from eb_tools.trouble import Trouble

CHAINS_A_PAGE = 500
MOST_NAMED = 20
NAMES = {PLATFORM: "the platform", HEADS: "the chain of heads"}


Kept = tuple[int, bytes]
"""Number and hash of an entry that somebody noted outside of the database."""


class Proved(NamedTuple):
    """What became of one chain."""

    chain_id: UUID
    entries: int
    problem: Problem | None


async def prove(
    dsn: str, org_id: UUID | None, env: Mapping[str, str], kept: Kept | None = None
) -> AsyncIterator[Proved]:
    """Prove the chain of an organisation, or every chain there is.

    What was `kept` must be in the organisation's chain; in the chain of heads, as auth logs it, where all are proved.
    """
    async with owner_context(dsn, env) as context:
        settings = settings_from(dsn, env)
        async for chain_id in _chains(context, org_id):
            known = [kept] if kept and chain_id == (org_id or HEADS) else []
            head, problem = await auditing.check_chain(
                lambda: context.begin(ACTOR), settings, chain_id, known
            )
            yield Proved(chain_id, head.seq, problem)


async def _chains(context: ServiceContext, org_id: UUID | None) -> AsyncIterator[UUID]:
    if org_id is not None:
        yield org_id
        return
    yield HEADS
    after: UUID | None = None
    while found := await _page(context, after):
        for chain_id in found:
            if chain_id != HEADS:
                yield chain_id
        after = found[-1]


async def _page(context: ServiceContext, after: UUID | None) -> list[UUID]:
    async with context.begin(ACTOR) as tx:
        return await audit.list_chains(tx, after, CHAINS_A_PAGE)


async def erase_person(dsn: str, email: str, env: Mapping[str, str]) -> int:
    """Take a person's address out of users, invitations and audit entries; give from how many entries.

    Trouble for an unknown address, and where an organisation is billed at it: give that another one first.
    """
    async with owner_tx(dsn, env) as tx:
        user = await sign_in.find_user(tx, address_from(email))
        if user is None:
            raise Trouble(f"Nobody signs in as {email}.")
        if billed := await orgs.list_billed_to(tx, user.email, MOST_NAMED):
            names = ", ".join(map(str, billed))
            raise Trouble(f"{email} is the billing address of {names}: give these another one first.")
        return await erasing.erase_person(tx, user)


def register(subparsers: Any, owner_dsn: Callable[[], str]) -> None:
    """Enter `eb audit-verify [ORG_ID] [--kept SEQ:HASH]` and `eb erase-person EMAIL`."""
    verify = subparsers.add_parser("audit-verify", help="prove the audit chains; status 1 when one is broken")
    verify.add_argument("org_id", type=UUID, nargs="?", help="one organisation's chain only")
    verify.add_argument(
        "--kept",
        type=_kept,
        metavar="SEQ:HASH",
        help="what was kept of an earlier proof of ORG_ID; without one, of what auth logs as `audit heads noted`",
    )
    verify.set_defaults(do=lambda options: asyncio.run(_verify(owner_dsn(), options.org_id, options.kept)))
    erase = subparsers.add_parser(
        "erase-person", help="take a person's address out of users and audit entries"
    )
    erase.add_argument("email")
    erase.set_defaults(do=lambda options: asyncio.run(_erase(owner_dsn(), options.email)))


def _kept(text: str) -> Kept:
    seq, _, digest = text.partition(":")
    if not seq.isdecimal() or len(digest) != 64:
        raise argparse.ArgumentTypeError("SEQ:HASH is a number and 64 hexadecimal digits")
    return int(seq), bytes.fromhex(digest)


async def _verify(dsn: str, org_id: UUID | None, kept: Kept | None) -> int:
    chains = entries = broken = 0
    async for one in prove(dsn, org_id, os.environ, kept):
        chains, entries = chains + 1, entries + one.entries
        if one.problem is not None:
            broken += 1
            whose = NAMES.get(one.chain_id, str(one.chain_id))
            print(f"{whose}: entry {one.problem.seq} is {one.problem.problem} ({one.problem.audit_id})")
    print(f"{chains} chains with {entries} entries, {broken} broken")
    return int(broken > 0)


async def _erase(dsn: str, email: str) -> int:
    count = await erase_person(dsn, email, os.environ)
    print(f"erased from {count} audit entries; the chains stay whole")
    return 0
