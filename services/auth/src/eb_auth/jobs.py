"""Clock doors of the auth service: mails, signing keys, and what has expired."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from eb_kit.jobs import Jobs
from eb_kit.tx import Tx

from .domain.tokens import STAFF_TOKEN_LIFETIME
from .flows import auditing, mails, signing
from .outside import mail as mail_out
from .settings import settings_of
from .store import credentials, oidc, sessions, sign_in

log = structlog.get_logger(__name__)
jobs = Jobs()

MAILS_A_BATCH = 20
LONGEST_WAIT_S = 60
ROWS_A_BATCH = 500
NOTED = "noted_heads"
"""Where a process keeps how far it has come around."""
KEPT_AFTER_END = timedelta(days=1)
RETIRE_AFTER = STAFF_TOKEN_LIFETIME + timedelta(hours=1)


@jobs.every(seconds=0.5)
async def send_mails(tx: Tx) -> int:
    """Send the mails that are due, side by side; what fails waits longer each time, what expired is dropped."""
    mails = await sign_in.take_mails(tx, tx.now, MAILS_A_BATCH)
    done = await asyncio.gather(*(_send(tx, mail) for mail in mails))
    gone = [mail.mail_id for mail, is_done in zip(mails, done, strict=True) if is_done]
    await sign_in.delete_mails(tx, gone)
    for mail in mails:
        if mail.mail_id not in gone:
            wait_s = min(2**mail.attempts, LONGEST_WAIT_S)
            await sign_in.update_mail_due(tx, mail.mail_id, tx.now + timedelta(seconds=wait_s))
    return len(mails)


async def _send(tx: Tx, mail: sign_in.WaitingMail) -> bool:
    """Tell whether a mail is done with: sent, or of no use any more."""
    if mail.expires_at <= tx.now:
        return True
    sent_at = tx.context.clock.machine_now()
    try:
        await mail_out.send(settings_of(tx), mail.mail_id, mails.unseal(tx, mail.sealed), sent_at)
    except mail_out.MailNotSent as error:
        log.warning("mail not sent, will try again", mail_id=str(mail.mail_id), error=str(error))
        return False
    return True


@jobs.every(seconds=30)
async def rotate_signing_keys(tx: Tx) -> int:
    """Announce the next signing key ahead of its use, and retire those whose tokens have all expired.

    By the machine's clock: token lifetimes don't follow the clock of a local run.
    """
    await credentials.lock_signing_keys(tx)
    now = tx.context.clock.machine_now()
    settings = settings_of(tx)
    newest, *older = await credentials.list_live_signing_keys(tx)
    in_use = timedelta(days=settings.signing_key_days)
    if newest.active_from + in_use <= now:
        await signing.add_signing_key(tx, now + timedelta(seconds=settings.signing_key_lead_s))
    past = older if newest.active_from + RETIRE_AFTER <= now else []
    for key in past:
        retired = await credentials.update_signing_key_retired(tx, key.kid, now)
        await tx.announce(retired.fact())
    return 0


@jobs.every(seconds=30)
async def reseal(tx: Tx) -> int:
    """After the secret changed, seal anew what the one before it sealed, so that it can be taken away."""
    return await signing.reseal(tx) + await auditing.reseal(tx)


@jobs.every(seconds=60)
async def note_heads(tx: Tx) -> int:
    """Note where each audit chain has come to, so that none can be set back unseen: once around, then a pause."""
    extras = tx.context.extras
    extras[NOTED] = await auditing.note_heads(tx, extras.get(NOTED))
    return int(extras[NOTED] is not None)


@jobs.every(seconds=60)
async def drop_expired(tx: Tx) -> int:
    """Drop expired codes, past windows of attempts, and sessions a day after they ended for good."""
    machine_now = tx.context.clock.machine_now()
    dropped = await sign_in.delete_expired(tx, tx.now, machine_now, ROWS_A_BATCH)
    dropped += await oidc.delete_past_attempts(tx, tx.now, ROWS_A_BATCH)
    return dropped + await sessions.delete_past_sessions(tx, tx.now - KEPT_AFTER_END, ROWS_A_BATCH)
