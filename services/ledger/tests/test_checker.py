"""The online checker: silent over sound lines, and each invariant broken on purpose is reported."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import REGISTRY

from eb_contracts.ids import new_id
from eb_ledger import jobs
from eb_ledger.domain.commission import CommissionKey
from eb_ledger.domain.invariants import ShareSum, is_telescoped

from .factories import a_charge
from .world import NOTHING_BROKEN, World

CHECKS = (jobs.check_splits, jobs.check_postings, jobs.check_shares)


@pytest.fixture
async def org_id(world: World) -> AsyncIterator[UUID]:
    """An organisation with a few sound lines, old enough for the checker."""
    made = await world.an_org_with_a_partner()
    await world.deliver(*(a_charge(charge_id=f"c{n}", org_id=made, amount_gross="0.07") for n in range(10)))
    await world.owner.execute("ALTER TABLE ledger.ledger DISABLE TRIGGER USER")
    jobs_until, jobs.SETTLED_AFTER = jobs.SETTLED_AFTER, timedelta(seconds=-1)
    yield made
    jobs.SETTLED_AFTER = jobs_until


async def breaches(world: World) -> dict[str, float]:
    """Run every check and read its metric."""
    for check in CHECKS:
        async with world.client.context.begin("system:ledger") as tx:
            await check(tx)
    names = ("split", "once", "share")
    return {
        name: REGISTRY.get_sample_value("eb_ledger_invariant_breaches", {"invariant": name}) or 0
        for name in names
    }


async def test_sound_lines_are_no_breach(world: World, org_id: UUID) -> None:
    assert await breaches(world) == {"split": 0, "once": 0, "share": 0}
    assert await world.broken() == NOTHING_BROKEN


async def test_a_line_whose_parts_do_not_sum_is_reported(world: World, org_id: UUID) -> None:
    await world.owner.execute("ALTER TABLE ledger.ledger DROP CONSTRAINT ledger_net")
    await world.owner.execute("UPDATE ledger.ledger SET net = net + 0.01 WHERE charge_id = 'c3'")

    assert await breaches(world) == {"split": 1, "once": 0, "share": 0}
    assert (await world.broken())["gross = partner + net"] == 1


async def test_a_second_line_of_a_charge_is_reported(world: World, org_id: UUID) -> None:
    columns = [
        row[0]
        for row in await world.owner.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'ledger' AND table_name = 'ledger'"
            " AND column_name NOT IN ('entry_id', 'partner_pct', 'partner_amount', 'net')"
        )
    ]
    names = ", ".join(columns)
    await world.owner.execute(
        f"INSERT INTO ledger.ledger (entry_id, partner_pct, partner_amount, net, {names})"
        f" SELECT $1, 0, 0, amount_gross, {names} FROM ledger.ledger WHERE charge_id = 'c3'",
        new_id(),
    )

    assert await breaches(world) == {"split": 0, "once": 1, "share": 0}
    assert (await world.broken())["one line per charge"] == 1


async def test_a_share_given_away_is_reported(world: World, org_id: UUID) -> None:
    await world.owner.execute(
        "UPDATE ledger.ledger SET partner_amount = partner_amount + 0.01, net = net - 0.01 WHERE charge_id = 'c3'"
    )

    assert await breaches(world) == {"split": 0, "once": 0, "share": 1}
    assert (await world.broken())["shares telescope"] == 1


async def test_a_breach_is_counted_once_and_stays_counted(world: World, org_id: UUID) -> None:
    await world.owner.execute("DELETE FROM ledger.charge_posting WHERE charge_id = 'c3'")

    assert (await breaches(world))["once"] == 1
    assert (await breaches(world))["once"] == 1


@pytest.mark.parametrize(("partner_amount", "expected"), [("0.07", True), ("0.08", False), ("0.06", False)])
def test_a_key_telescopes_only_if_its_parts_sum_to_the_rounded_share(
    partner_amount: str, expected: bool
) -> None:
    key = CommissionKey(UUID(int=1), UUID(int=2), "sms", "2026-11", "AUD", Decimal(10))

    assert is_telescoped(ShareSum(key, Decimal("0.70"), Decimal(partner_amount))) is expected


async def test_the_service_itself_cannot_change_delete_or_truncate_a_line(world: World, org_id: UUID) -> None:

    await world.owner.execute("ALTER TABLE ledger.ledger ENABLE TRIGGER USER")
    for statement in (
        "UPDATE ledger SET amount_gross = 0, net = -partner_amount",
        "DELETE FROM ledger",
        "TRUNCATE ledger",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with world.client.context.begin("service:ledger") as tx:
                await tx.execute(statement)


async def test_the_owner_cannot_change_delete_or_truncate_a_line_either(world: World, org_id: UUID) -> None:

    await world.owner.execute("ALTER TABLE ledger.ledger ENABLE TRIGGER USER")
    for statement in (
        "UPDATE ledger.ledger SET amount_gross = 0, net = -partner_amount",
        "DELETE FROM ledger.ledger",
        "TRUNCATE ledger.ledger",
    ):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await world.owner.execute(statement)
        assert refused.value.sqlstate == "EB002"
    await world.owner.execute("UPDATE ledger.ledger SET status = 'settled'")
