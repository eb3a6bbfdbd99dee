"""Bus doors of the estimator: the facts of prices, and counters as charges leave them."""

from __future__ import annotations

from eb_contracts.auth import ProjectChanged
from eb_contracts.catalog import (
    OrgTermsAssigned,
    PlanTermsDefined,
    RetailTermsAssigned,
    SkuChanged,
    TermsDefined,
)
from eb_contracts.pricing import Charge, ChargePriced
from eb_kit.bus import Handlers
from eb_kit.tx import Tx

from . import store

handlers = Handlers()
handlers.keeps(
    ProjectChanged, SkuChanged, TermsDefined, OrgTermsAssigned, RetailTermsAssigned, PlanTermsDefined
)


@handlers.consumes(ChargePriced, queue="counters", max_messages=1000, linger_s=0.25, prefetch=1000)
async def take_counters(tx: Tx, messages: list[ChargePriced]) -> None:
    """Keep each counter's newest state; twice is once and order is free, by the counter's version."""
    newest: dict[tuple[str, str, str], Charge] = {}
    for charge in (charge for message in messages for charge in message.charges):
        key = (str(charge.org_id), charge.sku, charge.period)
        if key not in newest or newest[key].counter.version < charge.counter.version:
            newest[key] = charge
    await store.update_counters(tx, [newest[key] for key in sorted(newest)])
