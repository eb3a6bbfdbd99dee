"""How far usage has come: recorded, priced, ledgered; forward only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from eb_contracts.ledger import EntriesPosted
from eb_contracts.pricing import ChargePriced


@dataclass(slots=True)
class Progress:
    """What is newly known of one usage record."""

    charge_id: str
    is_priced: bool = False
    entry_ids: list[UUID] = field(default_factory=list)

    @property
    def status(self) -> str:
        """Name the furthest step."""
        return "ledgered" if self.entry_ids else "priced"


def progress_of(messages: Iterable[ChargePriced | EntriesPosted]) -> dict[tuple[UUID, UUID], Progress]:
    """Gather the news by (org_id, usage_id); a charge of usage has the id of the usage it rates."""
    found: dict[tuple[UUID, UUID], Progress] = {}
    for message in messages:
        if isinstance(message, ChargePriced):
            for charge in message.charges:
                if charge.kind == "usage" and (usage_id := _usage_id(charge.charge_id)):
                    _of(found, charge.org_id, usage_id, charge.charge_id).is_priced = True
        else:
            for entry in message.entries:
                if usage_id := _usage_id(entry.charge_id):
                    _of(found, entry.org_id, usage_id, entry.charge_id).entry_ids.append(entry.entry_id)
    return found


def _usage_id(charge_id: str) -> UUID | None:
    """Read the usage id; None for charges of another kind, whose ids are no UUIDs of ours."""
    try:
        found = UUID(charge_id)
    except ValueError:
        return None
    return found if str(found) == charge_id and found.version == 7 else None


def _of(found: dict[tuple[UUID, UUID], Progress], org_id: UUID, usage_id: UUID, charge_id: str) -> Progress:
    return found.setdefault((org_id, usage_id), Progress(charge_id))
