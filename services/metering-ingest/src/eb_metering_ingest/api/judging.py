"""Dead letters checked once more: what is wrong with an event now.

Rule: docs/rules/metering.md, Dead letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from eb_contracts.errors import Fault
from eb_kit.tx import Tx

from .. import flows
from ..domain.checks import Window
from ..domain.letters import PROJECT_FAULT, UNKNOWN_PROJECT, UNRECORDABLE, Letter, corrected
from ..domain.recording import Received
from .reading import check, org_of, window_of

LETTERS_AT_ONCE = 1_000
"""Most letters looked at in one transaction."""
ANY_TIME = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
ORG_FAULT = Fault("/org_id", "other_organisation", "Must be the organisation of the dead letter.")


def judged(tx: Tx, row: Mapping[str, Any]) -> Letter:
    """Check a parked event once more: valid as of the day it came, or by now.

    What the writer parked had passed the door, so its time isn't asked again.
    """
    window = ANY_TIME if row["reason"] in (UNKNOWN_PROJECT, UNRECORDABLE) else _window(tx, row)
    event, _ = check(row["event"], window)
    is_same_org = event is not None and event.org_id == row["org_id"]
    received = Received(event, None, row["first_at"], row["trace_id"]) if event and is_same_org else None
    return flows.letter_of(row, received)


async def judged_anew(tx: Tx, row: Mapping[str, Any], sent: Any) -> Letter:
    """Give a letter with another event in it, and what is wrong with that."""
    event, faults = check(sent, _window(tx, row))
    org_id = row["org_id"] or org_of(sent)
    if event is None:
        return corrected(row, sent, org_id, faults)
    if event.org_id != org_id:
        return corrected(row, sent, org_id, (ORG_FAULT,))
    letter = corrected(row, sent, org_id, (), event)
    owners = await flows.known_projects(tx, {event.project_id})
    if owners.get(event.project_id) == org_id:
        return letter
    return replace(
        letter, errors=(PROJECT_FAULT,), reason=UNKNOWN_PROJECT, waits_for_project_id=event.project_id
    )


def _window(tx: Tx, row: Mapping[str, Any]) -> Window:
    return Window(window_of(tx.context, row["first_at"]).earliest, window_of(tx.context).latest)
