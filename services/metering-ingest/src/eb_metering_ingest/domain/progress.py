"""How far usage has come: recorded, unrated, priced, ledgered; forward only.

Rule: docs/rules/metering.md, Following an event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from eb_contracts.ledger import EntriesPosted
from eb_contracts.pricing import ChargePriced, UsageParked


@dataclass(slots=True)
class Progress:
    """What is newly known of one usage record: without a charge, that it waits for terms."""

    charge_id: str | None = None
    entry_ids: list[UUID] = field(default_factory=list)
    is_priced: bool = False

    @property
    def status(self) -> str:
        """Name the furthest step."""
        if self.entry_ids:
            return "ledgered"
        return "priced" if self.is_priced else "unrated"


def progress_of(
    messages: Iterable[ChargePriced | UsageParked | EntriesPosted],
) -> dict[tuple[UUID, UUID], Progress]:
    """Gather the news by (org_id, usage_id); a charge of usage has the id of the usage it rates."""
    found: dict[tuple[UUID, UUID], Progress] = {}
    for message in messages:
        if isinstance(message, ChargePriced):
            _note_charges(found, message)
        elif isinstance(message, UsageParked):
            for parked in message.usage:
                found.setdefault((parked.org_id, parked.usage_id), Progress())
        else:
            _note_entries(found, message)
    return found


def _note_charges(found: dict[tuple[UUID, UUID], Progress], message: ChargePriced) -> None:
    for charge in message.charges:
        if charge.kind == "usage" and (usage_id := _usage_id(charge.charge_id)):
            _of(found, charge.org_id, usage_id, charge.charge_id).is_priced = True


def _note_entries(found: dict[tuple[UUID, UUID], Progress], message: EntriesPosted) -> None:
    for entry in message.entries:
        if usage_id := _usage_id(entry.charge_id):
            _of(found, entry.org_id, usage_id, entry.charge_id).entry_ids.append(entry.entry_id)


def _usage_id(charge_id: str) -> UUID | None:
    """Read the usage id; None for charges of another kind, whose ids are no UUIDs of ours."""
    try:
        found = UUID(charge_id)
    except ValueError:
        return None
    return found if str(found) == charge_id and found.version == 7 else None


def _of(found: dict[tuple[UUID, UUID], Progress], org_id: UUID, usage_id: UUID, charge_id: str) -> Progress:
    progress = found.setdefault((org_id, usage_id), Progress())
    progress.charge_id = charge_id
    return progress
