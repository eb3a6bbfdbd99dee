"""Mails that wait sealed until the clock door sends them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from eb_kit.tx import Tx

from ..domain.mails import CODE, Mail
from ..store import members, sign_in
from . import sealing

MAIL_PURPOSE = "mail"
MOST_ADMINS_TOLD = 100


async def queue(tx: Tx, mail: Mail, expires_at: datetime) -> None:
    """Have a mail sent once this transaction is kept, as long as it is of use; it waits sealed."""
    content = {"to": mail.to, "kind": mail.kind, "facts": dict(mail.facts)}
    sealed = sealing.seal(tx, MAIL_PURPOSE, json.dumps(content).encode())
    await sign_in.insert_mail(tx, sealed, tx.now, expires_at)


async def queue_for_admins(
    tx: Tx, org_id: UUID, kind: str, facts: Mapping[str, str], expires_at: datetime
) -> None:
    """Have the same mail sent to each Admin of an organisation."""
    for address in await members.list_admin_emails(tx, org_id, MOST_ADMINS_TOLD):
        await queue(tx, Mail(address, kind, facts), expires_at)


def unseal(tx: Tx, sealed: bytes) -> Mail:
    """Open a mail that waited."""
    content = json.loads(sealing.unseal(tx, MAIL_PURPOSE, sealed))
    return Mail(content["to"], content.get("kind", CODE), content.get("facts") or {"code": content["code"]})
