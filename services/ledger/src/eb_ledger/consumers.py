"""Bus doors: priced charges become lines; organisations that were ever roots get their billing account; partners go
again to who asks."""

from __future__ import annotations

from eb_contracts.auth import OrgChanged
from eb_contracts.pricing import ChargePriced
from eb_kit.bus import Handlers
from eb_kit.tx import Tx

from . import flows
from .domain.partners import ALWAYS
from .domain.payers import ParentLinks
from .store import partners

handlers = Handlers()
handlers.owns("partner", partners.list_partner_facts)


@handlers.consumes(ChargePriced, queue="charges", max_weight=5_000)
async def post_priced_charges(tx: Tx, messages: list[ChargePriced]) -> None:
    """Post every charge of the take once.

    Twice is once (unique charge_posting); order is free (shares telescope, all look-ups are at the charge's time).
    """
    await flows.post_charges(tx, [charge for message in messages for charge in message.charges])


@handlers.keeps(OrgChanged)
async def give_default_accounts(tx: Tx, facts: list[OrgChanged]) -> None:
    """Make the default billing account of each organisation that was ever a root."""
    await flows.ensure_default_accounts(tx, {fact.org_id: links_of_fact(fact) for fact in facts})


def links_of_fact(fact: OrgChanged) -> ParentLinks:
    """Give the parent links of an organisation's fact; without any, its present parent holds since ever."""
    links = [(link.effective_at, link.parent_org_id) for link in fact.parent_links]
    return links or [(ALWAYS, fact.parent_org_id)]
