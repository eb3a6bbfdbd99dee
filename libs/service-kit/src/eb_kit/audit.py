"""Sends what the audit triggers noted to auth, which chains the entries of all services.

The trigger writes the entry and its id in `audit_waiting`, in the transaction of the change; here they leave
through the outbox, many in a message. Rule: docs/rules/identity.md, Audit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eb_contracts.audit import AuditEntry, AuditRecorded

if TYPE_CHECKING:
    from .tx import Tx

MOST_IN_MESSAGE = 200
TAKE = """
    DELETE FROM audit_waiting AS w USING (
        SELECT audit_id FROM audit_waiting ORDER BY audit_id LIMIT $1 FOR UPDATE SKIP LOCKED) AS t
     WHERE w.audit_id = t.audit_id RETURNING w.audit_id
"""
LIST = """
    SELECT audit_id, org_id, entity, entity_id, action, actor, on_behalf_of, session_user_name AS "session_user",
           request_id, trace_id, at, before::text AS before, after::text AS after
      FROM audit_entry WHERE audit_id = ANY($1) ORDER BY audit_id
"""


async def send_audit_entries(tx: Tx) -> int:
    """Publish the audit entries that nobody sent yet, up to 200; give how many."""
    taken = [row["audit_id"] for row in await tx.fetch(TAKE, MOST_IN_MESSAGE)]
    if taken:
        rows = await tx.fetch(LIST, taken)
        entries = tuple(AuditEntry.trusted(**dict(row)) for row in rows)
        tx.publish(AuditRecorded(service=tx.context.service_name, entries=entries))
    return len(taken)
