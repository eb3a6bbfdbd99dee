"""Mails come in here, signed by the mail server that took them; they are stored, then answered, then judged."""

from __future__ import annotations

import hashlib
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_contracts.ids import new_id
from eb_kit.service import CONTEXT
from eb_kit.telemetry import current_trace
from eb_kit.tx import Tx, begin
from eb_kit.web import accepted, ok, path_text, path_uuid, read_raw

from ..domain.addresses import read_address
from ..domain.errors import EnvelopeInvalid, RequestStale, SignatureInvalid
from ..domain.mail import MAX_MAIL_BYTES
from ..domain.signing import check_age, check_signature, signed_text
from ..store import claims, mails
from .routes import only_header, routes
from .shapes import MailAccepted, MailView

RAW = "raw"
ENVELOPE = ("X-EB-Envelope-From", "X-EB-Envelope-To", "X-EB-Client-IP", "X-EB-Helo")
LONGEST_FIELD = 1000


@routes.post(
    "/verify/inbound/{provider}",
    goes_on="a mail comes once, signed with our own server's secret; the database keeps it",
    answer=MailAccepted,
    status=202,
    idempotency="none",
    raw_body=True,
    media_type="message/rfc822",
    errors=(SignatureInvalid, RequestStale, EnvelopeInvalid),
)
async def take_mail(request: web.Request) -> web.Response:
    """Take a raw mail from our own mail server; 202 with its id once it is stored.

    The identical request again is answered alike. 404 for a provider that isn't configured.
    """
    if path_text(request, "provider") != RAW:
        raise NotFound
    context = request.app[CONTEXT]
    timestamp, signature, *envelope = (
        only_header(request, name) for name in ("X-EB-Timestamp", "X-EB-Signature", *ENVELOPE)
    )
    body = await read_raw(request, MAX_MAIL_BYTES)
    text = signed_text([timestamp, *envelope], body)
    check_signature(text, signature, context.settings.inbound_raw_secrets)
    check_age(timestamp, context.clock.machine_now().timestamp())
    _check_envelope(envelope)
    async with begin(request) as tx:
        mail_id = await _keep(tx, envelope, body, text)
    context.extras["desk"].hurry()
    return accepted(MailAccepted(mail_id=mail_id))


def _check_envelope(envelope: list[str]) -> None:
    for value in envelope:
        if len(value) > LONGEST_FIELD or not value.isprintable():
            raise EnvelopeInvalid


async def _keep(tx: Tx, envelope: list[str], body: bytes, text: bytes) -> UUID:
    """Store a mail with the claim that asked for it."""
    mail_from, rcpt_to, client_ip, helo = envelope
    ahead = tx.now - tx.context.clock.machine_now()
    mail = mails.IncomingMail(
        mail_id=new_id(),
        request_sha256=hashlib.sha256(text).digest(),
        provider=RAW,
        received_at=tx.now,
        clock_ahead_s=round(ahead.total_seconds()),
        envelope_from=mail_from,
        envelope_to=rcpt_to,
        client_ip=client_ip,
        helo=helo,
        raw=body,
        raw_sha256=hashlib.sha256(body).digest(),
        claim_id=await _claim_of(tx, rcpt_to),
        trace_id=current_trace().trace_id,
    )
    return await mails.insert_mail_once(tx, mail)


async def _claim_of(tx: Tx, rcpt_to: str) -> UUID | None:
    mailbox = read_address(rcpt_to.encode())
    return await claims.find_claim_of_address(tx, mailbox.address) if mailbox else None


@routes.get("/verify/mails/{mail_id}", answer=MailView)
async def show_mail(request: web.Request) -> web.Response:
    """Show a mail's verdict and checks to staff; never its content."""
    async with begin(request) as tx:
        return ok(MailView.of(await mails.get_mail(tx, path_uuid(request, "mail_id"))))
