"""Bus doors of the auth service: audit entries of all services are chained; its entities go again to who asks; of
partners it keeps which organisation acts for them."""

from __future__ import annotations

from eb_contracts.audit import AuditRecorded
from eb_contracts.ledger import PartnerChanged
from eb_kit.bus import Handlers
from eb_kit.tx import Tx

from .flows import auditing
from .store.facts import LISTERS

handlers = Handlers()
for entity, lister in LISTERS.items():
    handlers.owns(entity, lister)
handlers.follows(PartnerChanged)


@handlers.consumes(AuditRecorded, queue="audit", max_messages=200, max_weight=5_000)
async def chain_audit_entries(tx: Tx, messages: list[AuditRecorded]) -> None:
    """Put audit entries at the end of their organisation's chain, each once.

    Only takes of this queue wait for each other, at a chain's head; nobody who writes audited tables does.
    """
    await auditing.chain_entries(
        tx, [(message.service, entry) for message in messages for entry in message.entries]
    )
