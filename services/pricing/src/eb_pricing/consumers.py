"""Bus doors of pricing: recorded usage becomes charges; changed facts mark what is to be looked at again."""

from __future__ import annotations

from eb_contracts.auth import ProjectChanged
from eb_contracts.catalog import OrgTermsAssigned, RetailTermsAssigned, SkuChanged, TermsDefined
from eb_contracts.metering import UsageRecorded
from eb_kit.bus import Handlers
from eb_kit.tx import Tx

from . import store
from .flows import rating

handlers = Handlers()
handlers.owns("billing_period", store.list_period_facts)
handlers.keeps(ProjectChanged, SkuChanged)


@handlers.consumes(UsageRecorded, queue="usage", max_messages=500, max_weight=5_000)
async def price_usage(tx: Tx, messages: list[UsageRecorded]) -> None:
    """Charge a take of usage records, each once; what has no terms waits as unrated.

    Twice is once (inbox, and a charge per usage_id looked up under the counters' locks); order is free,
    since charges telescope. Rule: docs/rules/pricing.md, The one formula.
    """
    await rating.rate_records(tx, [record for message in messages for record in message.usage])


@handlers.keeps(OrgTermsAssigned)
async def mark_orgs(tx: Tx, facts: list[OrgTermsAssigned]) -> None:
    """Have organisations looked at whose assignments changed: their counters, and what begins when."""
    await store.lock_terms(tx)
    org_ids = [fact.org_id for fact in facts]
    await store.mark_orgs_due(tx, org_ids)
    await store.mark_calendar_due(tx, org_ids)


@handlers.keeps(RetailTermsAssigned)
async def mark_retail(tx: Tx, facts: list[RetailTermsAssigned]) -> None:
    """Have those looked at who stand on changed retail defaults, or wait for them."""
    await store.lock_terms(tx)
    skus = {sku for fact in facts for step in fact.assignments for sku in step.hashes}
    await store.mark_retail_due(tx, [fact.retail_key for fact in facts], skus)


@handlers.keeps(TermsDefined)
async def mark_awaiting(tx: Tx, facts: list[TermsDefined]) -> None:
    """Have those looked at who waited for these terms."""
    await store.lock_terms(tx)
    org_ids = await store.mark_awaiting_due(tx, [fact.terms_hash for fact in facts])
    await store.mark_calendar_due(tx, org_ids)
