"""Posting charges: the steps that the bus door and the sweep of parked charges share.

Rule: docs/rules/ledger.md, Once per charge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from uuid import UUID

import structlog

from eb_contracts.ids import new_id
from eb_contracts.ledger import EntriesPosted
from eb_contracts.pricing import Charge
from eb_kit.service import ServiceContext
from eb_kit.tx import Tx

from .domain import postings
from .domain.attribution import NOTHING, UNATTRIBUTED, Attribution, attribute, partner_at
from .domain.entries import Entry, entry_of
from .domain.errors import OrgMissing
from .domain.payers import ParentLinks, payer, was_ever_root
from .domain.postings import ChargeKey, Offers, Parked
from .store import accounts, lookups, parked, posting

log = structlog.get_logger(__name__)

MOST_IN_MESSAGE = 1000
MONTHS_AHEAD = 12


async def ensure_month(context: ServiceContext, month: date) -> None:
    """Have the ledger's partition of a month before lines of it come.

    In a transaction of its own: made inside the take, it would be lost with it. Remembered per process.
    """
    made: set[date] = context.extras.setdefault("ledger_months", set())
    if month not in made:
        async with context.begin("system:ledger") as own:
            await posting.ensure_month(own, month)
        made.add(month)


async def post_charges(tx: Tx, charges: Iterable[Charge]) -> None:
    """Post each charge once; park what conflicts, what can't be a line and what waits for its organisation.

    A constant number of statements. Locks postings, then commission counters, each in key order.
    """
    await ensure_month(tx.context, tx.now.date().replace(day=1))
    offers, aside = postings.screen(charges)
    payers, waiting = await _find_payers(tx, offers)
    ready = {key: offer for key, offer in offers.items() if key in payers}
    new, clashing = await _claim(tx, ready)
    if new:
        await _post(tx, {key: ready[key] for key in new}, new, payers)
    await _park(tx, [*aside, *clashing], waiting)


async def _park(tx: Tx, refused: list[Parked], waiting: list[Parked]) -> None:
    """Park charges: those that wait go on by themselves, the others need a person and raise an alarm."""
    if refused:
        reasons = sorted({one.reason for one in refused})
        log.error("charges can't be posted", reasons=reasons, charges=len(refused))
    if waiting:
        log.info("charges wait for their organisation", charges=len(waiting))
    if refused or waiting:
        await parked.insert_parked(tx, [*refused, *waiting])


async def _claim(tx: Tx, offers: Offers) -> tuple[dict[ChargeKey, UUID], list[Parked]]:
    """Claim the charges not posted yet; give their entry ids, sorted, and those in conflict."""
    entry_ids = {key: new_id() for key in offers}
    claimed = await posting.insert_postings_once(tx, offers, entry_ids) if offers else set()
    if len(claimed) == len(offers):
        return entry_ids, []
    known = [key for key in offers if key not in claimed]
    clashing = postings.conflicts(offers, await posting.list_posted_hashes(tx, known))
    return {key: entry_ids[key] for key in offers if key in claimed}, clashing


async def _find_payers(tx: Tx, offers: Offers) -> tuple[dict[ChargeKey, UUID], list[Parked]]:
    """Give each charge's billing account, and the charges whose organisation isn't known yet."""
    org_ids = {key.org_id for key in offers}
    defaults = await lookups.list_default_accounts(tx, org_ids)
    links: Mapping[UUID, ParentLinks] = {}
    if climbing := org_ids - defaults.keys():
        links = await lookups.list_parent_links(tx, climbing)
        defaults |= await _default_accounts_above(tx, links)
    payers, waiting = {}, []
    for key, offer in offers.items():
        try:
            payers[key] = payer(key.org_id, offer.charge.time, defaults, links)
        except OrgMissing as missing:
            waiting.append(Parked(offer, "org_unknown", missing.org_id))
    return payers, waiting


async def _default_accounts_above(tx: Tx, links: Mapping[UUID, ParentLinks]) -> dict[UUID, UUID]:
    """Give the default accounts among these organisations; a former root without one gets it now."""
    found = await lookups.list_default_accounts(tx, links)
    if not all(org_id in found for org_id in links if was_ever_root(links[org_id])):
        await ensure_default_accounts(tx, links)
        found = await lookups.list_default_accounts(tx, links)
    return found


async def ensure_default_accounts(tx: Tx, links: Mapping[UUID, ParentLinks]) -> None:
    """Give every organisation that was ever a root its default billing account."""
    roots = [org_id for org_id in sorted(links) if was_ever_root(links[org_id])]
    if roots:
        await accounts.insert_default_accounts_once(tx, roots)


async def _post(
    tx: Tx, offers: Offers, entry_ids: Mapping[ChargeKey, UUID], payers: Mapping[ChargeKey, UUID]
) -> None:
    attributions = await _attribute(tx, offers, payers)
    parts = await _part(tx, offers, attributions)
    entries = [
        entry_of(
            offer.charge,
            attributions[key],
            parts.get(key, NOTHING),
            entry_id=entry_ids[key],
            billing_account_id=payers[key],
            created_at=tx.now,
        )
        for key, offer in offers.items()
    ]
    await posting.insert_entries(tx, entries)
    _tell(tx, offers, entries)


async def _attribute(
    tx: Tx, offers: Offers, payers: Mapping[ChargeKey, UUID]
) -> dict[ChargeKey, Attribution]:
    """Give each charge's partner and percentage, at its own time."""
    pors = await lookups.list_partners_of_record(tx, {key.org_id for key in offers}, set(payers.values()))
    if not pors:
        return dict.fromkeys(offers, UNATTRIBUTED)
    partner_ids = {por.partner_id for found in pors.values() for por in found}
    tiers = await lookups.list_tiers(tx, partner_ids)
    names = {tier for history in tiers.values() for _, tier in history}
    rates = await lookups.list_rate_histories(tx, names, {offer.charge.sku for offer in offers.values()})
    return {
        key: attribute(
            partner_at(pors.get(payers[key], ()), pors.get(key.org_id, ()), offer.charge.time),
            tiers,
            rates,
            offer.charge.sku,
            offer.charge.time,
        )
        for key, offer in offers.items()
    }


async def _part(
    tx: Tx, offers: Offers, attributions: Mapping[ChargeKey, Attribution]
) -> dict[ChargeKey, Decimal]:
    """Give the partner's amount of each charge that has one; moves the counters they telescope over."""
    groups = postings.by_commission_key(offers, attributions)
    if not groups:
        return {}
    added = {group: postings.gross_of(offers, keys) for group, keys in groups.items()}
    after = await posting.add_to_commission_counters(tx, added)
    return postings.part_by_charge(offers, groups, added, after)


def _tell(tx: Tx, offers: Offers, entries: list[Entry]) -> None:
    posted = [
        {"org_id": key.org_id, "charge_id": key.charge_id, "entry_id": entry.entry_id}
        for key, entry in zip(offers, entries, strict=True)
    ]
    for start in range(0, len(posted), MOST_IN_MESSAGE):
        tx.publish(EntriesPosted.model_validate({"entries": posted[start : start + MOST_IN_MESSAGE]}))


async def post_parked(tx: Tx, limit: int) -> int:
    """Post parked charges whose organisation has arrived; give how many are closed."""
    arrived = await parked.take_arrived(tx, limit)
    if arrived:
        await post_charges(tx, arrived)
    return (
        await parked.resolve_posted(tx, [ChargeKey(c.charge_id, c.org_id) for c in arrived]) if arrived else 0
    )
