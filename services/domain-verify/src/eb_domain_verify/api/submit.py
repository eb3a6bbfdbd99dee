"""A trusted mail processor says what it found out about a mail that it has judged itself."""

from __future__ import annotations

from aiohttp import web
from pydantic import ValidationError

from eb_contracts.errors import Refusal
from eb_kit import strictjson
from eb_kit.access import caller
from eb_kit.inputs import faults_of, validate
from eb_kit.problems import BodyInvalid
from eb_kit.service import CONTEXT
from eb_kit.tx import begin
from eb_kit.web import ok, read_raw

from .. import flows
from ..domain.errors import RequestStale, SignatureInvalid
from ..domain.names import normalise
from ..domain.signing import check_age, check_signature, signed_text
from .routes import only_header, routes
from .shapes import EmailSubmit, SubmitView


@routes.post(
    "/verify/email-submit",
    body=EmailSubmit,
    answer=SubmitView,
    idempotency="none",
    errors=(SignatureInvalid, RequestStale),
)
async def submit_email(request: web.Request) -> web.Response:
    """Verify a claim by a trusted processor's word; 200 says whether, and if not, why.

    Besides the service credential the request is signed with the processor's own secret, over method, path,
    time and body.
    """
    body = await _signed_body(request)
    async with begin(request) as tx:
        reasons = await flows.take_assertion(tx, _assertion(request, body))
    return ok(SubmitView(status="rejected" if reasons else "verified", reasons=[str(one) for one in reasons]))


async def _signed_body(request: web.Request) -> EmailSubmit:
    """Check the signature over the bytes as sent, then read them."""
    context = request.app[CONTEXT]
    timestamp, signature = (only_header(request, name) for name in ("X-EB-Timestamp", "X-EB-Signature"))
    raw = await read_raw(request)
    secrets = context.settings.email_submit_secrets.get(caller(request).service_name, ())
    check_signature(signed_text([request.method, request.path, timestamp], raw), signature, secrets)
    check_age(timestamp, context.clock.machine_now().timestamp())
    value = strictjson.parse(raw)
    try:
        body: EmailSubmit = validate(EmailSubmit, value)
    except ValidationError as error:
        raise BodyInvalid(faults=faults_of(error, value)) from None
    return body


def _assertion(request: web.Request, body: EmailSubmit) -> flows.Assertion:
    return flows.Assertion(
        processor=caller(request).service_name,
        token=body.token,
        from_domain=_canonical(body.from_domain),
        dkim_pass=body.dkim_pass,
        spf_pass=body.spf_pass,
        dmarc_aligned=body.dmarc_aligned,
    )


def _canonical(domain: str) -> str:
    """Give a domain in canonical form, or as it was sent if it has none: then it matches no claim."""
    try:
        return normalise(domain)
    except Refusal:
        return domain
