"""Steps on a Tx that the catalog's doors share: put an organisation on a plan, resolve and announce terms.

Whoever changes what terms are made of (SKUs, tax rates, plan versions) holds the inputs' lock alone and marks the
organisations due; whoever resolves holds it shared. So no change can slip between reading and announcing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from eb_contracts.auth import OrgChanged
from eb_contracts.catalog import OrgTermsAssigned, RetailTermsAssigned, TermsBody
from eb_kit.tx import Tx

from .domain import periods, plan_terms, terms, timeline
from .domain.errors import PeriodIsClosed
from .domain.products import Entitlement, Model, OrgModel, Plan, Product, must_stay, next_step
from .domain.terms import Inputs, TaxRate, must_not_rewrite
from .domain.timeline import Change, Published, Timeline
from .store import orgs, plans, products
from .store import plan_terms as kept_plan_terms


async def put_product(tx: Tx, known: Product | None, wanted: Product) -> None:
    """Keep a SKU and announce it; a changed price or tax code opens a step of its history.

    The caller holds the inputs' lock alone. SkuFixed for another type or unit.
    """
    must_stay(known, wanted)
    found = (await products.list_skus(tx, [wanted.sku])).get(wanted.sku)
    at_once, later = periods.running_everywhere(tx.now), periods.next_everywhere(tx.now)
    step = next_step(known, found.steps if found else (), wanted, at_once, later)
    await products.put_product(tx, wanted)
    await tx.announce(wanted.fact())
    if step is not None:
        await products.put_step(tx, wanted.sku, step)
        await refresh(tx, wanted.sku)


async def put_rate(tx: Tx, rate: TaxRate) -> bool:
    """Keep a tax rate and resolve again what it decides; say whether it is new.

    The caller holds the inputs' lock alone. PastRate where the past would change.
    """
    must_not_rewrite(await products.list_rates(tx), rate, tx.minute)
    is_new = await products.put_rate(tx, rate)
    await refresh(tx)
    return is_new


async def publish(tx: Tx, plan: Plan, *, is_immediate: bool) -> int:
    """Freeze the plan's draft as the next version and have it taken up by every organisation on the plan.

    The caller holds the inputs' lock alone, and the plan's. Gives the version.
    """
    published = Published(plan.plan_id, plan.version + 1, is_immediate, tx.now)
    await plans.insert_version(tx, published)
    await plans.update_plan(
        tx, replace(plan, version=published.version, is_draft_open=False, status="published")
    )
    await orgs.mark_due(tx, plan.plan_id)
    await resolve_due(tx)
    await kept_plan_terms.mark_due(tx, plan.plan_id)
    await resolve_plans(tx)
    return published.version


async def refresh(tx: Tx, sku: str | None = None) -> None:
    """Resolve retail defaults now; organisations, and plans (those that name `sku`), now or by the job."""
    await resolve_retail(tx)
    await orgs.mark_due(tx)
    await resolve_due(tx)
    await kept_plan_terms.mark_due(tx, sku=sku)
    await resolve_plans(tx)


async def assign(
    tx: Tx, org_id: UUID, model: Model, plan: Plan, notes: str | None, *, is_immediate: bool
) -> tuple[OrgModel, bool]:
    """Put an organisation on a published plan, with the overrides of its entitlement, and announce its terms.

    The caller holds the inputs' lock. Locks the timeline. CurrencyChangeImmediate as in `timeline.assign`.
    """
    time_zone, country = await orgs.get_place(tx, org_id)
    old = await orgs.lock_timeline(tx, org_id)
    entitlement = await orgs.find_entitlement(tx, org_id, plan.plan_id)
    overrides = entitlement.overrides if entitlement else {}
    first = Change(tx.now, plan.plan_id, plan.version, model.currency, overrides, time_zone, country)
    new, since = timeline.assign(old, first, tx.now, is_immediate=is_immediate)
    if entitlement is None:
        await orgs.put_entitlement(tx, Entitlement(org_id, plan.plan_id, {}, since))
    assigned = OrgModel(org_id, model.model_id, plan.plan_id, tx.actor, tx.now, notes, since)
    is_new = await orgs.put_org_model(tx, assigned)
    await change_timeline(tx, org_id, old, new)
    return assigned, is_new


async def override(
    tx: Tx,
    org_id: UUID,
    plan_id: UUID,
    overrides: Mapping[str, Mapping[str, Any]],
    wanted: datetime | None,
    *,
    is_immediate: bool,
) -> tuple[Entitlement, bool]:
    """Give an organisation other overrides of a plan and announce its terms, if it is or will be on the plan.

    The caller holds the inputs' lock. Locks the timeline. Unacceptable for an instant too far back,
    PeriodIsClosed where a period from then on is closed.
    """
    time_zone, _ = await orgs.get_place(tx, org_id)
    old = await orgs.lock_timeline(tx, org_id)
    since = timeline.effect_of_override(old, time_zone, tx.now, wanted, is_immediate=is_immediate)
    if old and await orgs.is_any_closed(tx, org_id, timeline.periods_since(old, since, tx.now)):
        raise PeriodIsClosed
    entitlement = Entitlement(org_id, plan_id, overrides, since)
    is_new = await orgs.put_entitlement(tx, entitlement)
    await change_timeline(tx, org_id, old, timeline.override(old, plan_id, since, overrides))
    await kept_plan_terms.put_due(tx, plan_id, org_id)
    await resolve_plans(tx)
    return entitlement, is_new


async def follow_moves(tx: Tx, facts: Iterable[OrgChanged]) -> None:
    """Take up other time zones and countries from the next period on; locks those organisations' timelines."""
    places = {fact.org_id: (fact.default_timezone, fact.country) for fact in facts if not fact.is_deleted}
    await orgs.lock_inputs(tx, alone=False)
    for org_id, old in (await orgs.lock_timelines(tx, places)).items():
        new = timeline.move(old, tx.now, *places[org_id])
        if new != old:
            await change_timeline(tx, org_id, old, new)


async def change_timeline(tx: Tx, org_id: UUID, old: Timeline, new: Timeline) -> None:
    """Keep a timeline that is locked, and announce what terms it leads to."""
    await orgs.update_timeline(tx, org_id, old, new)
    await announce(tx, {org_id: new})


async def resolve_due(tx: Tx) -> int:
    """Resolve a batch of organisations that are due, with newer versions of their plans; give how many.

    The caller holds the inputs' lock.
    """
    due = await orgs.lock_timelines(tx, await orgs.take_due(tx, tx.context.settings.resolve_batch))
    versions = await plans.list_versions(tx, {change.plan_id for line in due.values() for change in line})
    adopted = {}
    for org_id, old in due.items():
        new = old
        for published in versions:
            new = timeline.adopt(new, published)
        if new != old:
            await orgs.update_timeline(tx, org_id, old, new)
        adopted[org_id] = new
    await announce(tx, adopted)
    return len(due)


async def describe_plan(tx: Tx, plan: Plan) -> None:
    """Announce a new plan, or another status of one. The caller holds the inputs' lock."""
    await kept_plan_terms.put_due(tx, plan.plan_id)
    await kept_plan_terms.mark_due(tx, plan.plan_id)
    await resolve_plans(tx)


async def resolve_plans(tx: Tx) -> int:
    """Resolve a batch of plans that are due and announce those that differ; give how many there were.

    The caller holds the inputs' lock.
    """
    due = await kept_plan_terms.take_due(tx, tx.context.settings.resolve_batch)
    if not due:
        return 0
    inputs = await _inputs_of(tx, {(one.plan.plan_id, one.plan.version) for one in due})
    await _have_retail(tx, {(one.currency, place) for one in due for place in plan_terms.places_of(inputs)})
    resolved = [plan_terms.resolve_plan(one, inputs) for one in due]
    await define(tx, {key: body for _, bodies in resolved for key, body in bodies.items()})
    announced = await kept_plan_terms.list_announced(tx, [fact.entity_id for fact, _ in resolved])
    for fact, _ in resolved:
        known = announced.get(fact.entity_id)
        if known is None or known.model_copy(update={"version": fact.version}) != fact:
            await kept_plan_terms.update_announced(tx, fact)
            await tx.announce(fact)
    return len(due)


async def announce(tx: Tx, timelines: Mapping[UUID, Timeline]) -> None:
    """Resolve timelines that are locked; announce what differs from what was announced before."""
    inputs = await load_inputs(tx, timelines.values())
    await _have_retail(
        tx, {(change.currency, change.country) for line in timelines.values() for change in line}
    )
    resolved = {org_id: terms.resolve(line, inputs) for org_id, line in timelines.items()}
    await define(tx, {key: body for found in resolved.values() for key, body in found.bodies.items()})
    for known in await orgs.list_announced(tx, resolved):
        steps = resolved[known.org_id].steps
        if steps != known.assignments:
            fact = OrgTermsAssigned(version=known.version + 1, org_id=known.org_id, assignments=steps)
            await orgs.update_org_fact(tx, fact)
            await tx.announce(fact)


async def load_inputs(tx: Tx, timelines: Iterable[Timeline]) -> Inputs:
    """Read everything that these timelines' terms are made of; the history of all SKUs and rates."""
    return await _inputs_of(
        tx, {(change.plan_id, change.plan_version) for line in timelines for change in line}
    )


async def _inputs_of(tx: Tx, versions: Iterable[tuple[UUID, int]]) -> Inputs:
    return Inputs(
        plans=await plans.list_version_prices(tx, versions),
        skus=await products.list_skus(tx),
        taxes=await products.list_rates(tx),
        rounding=tx.context.settings.rounding,
    )


async def _have_retail(tx: Tx, places: Iterable[tuple[str, str]]) -> None:
    """Announce the retail defaults of each currency and country that is new here."""
    keys = {terms.retail_key(*place): place for place in sorted(places)}
    new = await orgs.insert_retail_once(tx, keys)
    if new:
        await resolve_retail(tx)


async def resolve_retail(tx: Tx) -> None:
    """Resolve all retail defaults; announce those that differ from what was announced. Locks them."""
    inputs = await load_inputs(tx, ())
    for currency, country, known in await orgs.lock_retail(tx):
        resolved = terms.resolve_retail(currency, country, inputs)
        if known.assignments == resolved.steps:
            continue
        fact = RetailTermsAssigned(
            version=known.version + 1, retail_key=known.retail_key, assignments=resolved.steps
        )
        await orgs.update_retail_fact(tx, fact)
        await define(tx, resolved.bodies)
        await tx.announce(fact)


async def define(tx: Tx, bodies: Mapping[str, TermsBody]) -> None:
    """Keep and announce terms that were never seen before."""
    new = await orgs.insert_terms_once(tx, bodies)
    if new:
        await tx.announce(*new)
