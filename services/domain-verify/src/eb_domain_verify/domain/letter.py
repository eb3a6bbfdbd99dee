"""What a proof must say, and that a person sent it: every rule that needs neither DNS nor crypto.

Each rule answers with its reason or None, so that a claimant reads all that is wrong at once.
Rule: docs/rules/domain-verification.md, The three fields and A person's mail.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .addresses import Mailbox, read_address, read_mailbox
from .mail import BLANKS, CRLF, Mail
from .names import is_within
from .reasons import Reason

ROLES = frozenset({"mailer-daemon", "postmaster"})
BULK = frozenset({b"bulk", b"list", b"junk", b"auto_reply"})
ROBOT_FIELDS = (b"x-autoreply", b"x-auto-response-suppress", b"feedback-id")
TOKEN = re.compile(r"[A-Z2-7]{26}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """How the mail was handed over: MAIL FROM ("" is the null sender) and RCPT TO, without angle brackets."""

    mail_from: str
    rcpt_to: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a claim asks for. Times are Unix seconds on the signers' clock."""

    domain: str
    send_to: str
    token_sha256: bytes
    issued_at: int
    expires_at: int
    is_used: bool
    is_revoked: bool


def token_digest(token: str) -> bytes:
    """Give the form in which a token is kept and compared (SHA-256, 32 bytes)."""
    return hashlib.sha256(token.encode()).digest()


def letter_reasons(mail: Mail, envelope: Envelope, challenge: Challenge, received_at: int) -> list[Reason]:
    """Give every reason to refuse this mail that needs no DNS and no crypto; empty if there is none."""
    return [
        *_identity_reasons(mail, envelope, challenge, received_at),
        *_person_reasons(mail, envelope, challenge.domain),
    ]


def _identity_reasons(
    mail: Mail, envelope: Envelope, challenge: Challenge, received_at: int
) -> Iterator[Reason]:
    if challenge.is_revoked:
        yield Reason.CLAIM_REVOKED
    if not same_mailbox(envelope.rcpt_to, challenge.send_to):
        yield Reason.ENVELOPE_TO_MISMATCH
    yield from _from_reasons(mail, challenge.domain)
    yield from _to_reasons(mail, challenge.send_to)
    yield from _subject_reasons(mail, challenge, received_at)
    if mail.has_prefix(b"resent-"):
        yield Reason.RESENT
    if mail.named(b"in-reply-to") or mail.named(b"references"):
        yield Reason.REPLY


def _from_reasons(mail: Mail, domain: str) -> Iterator[Reason]:
    fields = mail.named(b"from")
    if len(fields) != 1:
        yield Reason.FROM_NOT_SINGLE
        return
    sender = read_mailbox(fields[0].unfolded)
    if sender is None:
        yield Reason.FROM_MALFORMED
    elif sender.domain != domain:
        yield Reason.FROM_DOMAIN_MISMATCH


def _to_reasons(mail: Mail, send_to: str) -> Iterator[Reason]:
    fields = mail.named(b"to")
    if len(fields) != 1:
        yield Reason.TO_NOT_SINGLE
        return
    recipient = read_mailbox(fields[0].unfolded)
    if recipient is None:
        yield Reason.TO_MALFORMED
    elif recipient.address != send_to:
        yield Reason.TO_MISMATCH


def _subject_reasons(mail: Mail, challenge: Challenge, received_at: int) -> Iterator[Reason]:
    """The Subject is the token itself: no `Re:`, no encoded words, no other case, nothing beside it."""
    fields = mail.named(b"subject")
    if len(fields) != 1:
        yield Reason.SUBJECT_NOT_SINGLE
        return
    subject = fields[0].unfolded.decode("latin-1")
    if not TOKEN.fullmatch(subject):
        yield Reason.SUBJECT_NOT_TOKEN
    elif not hmac.compare_digest(token_digest(subject), challenge.token_sha256):
        yield Reason.TOKEN_WRONG
    else:
        yield from token_reasons(challenge, received_at)


def token_reasons(challenge: Challenge, received_at: int) -> Iterator[Reason]:
    """Give why the right token no longer counts: used, or expired when the mail came."""
    if challenge.is_used:
        yield Reason.TOKEN_USED
    elif received_at >= challenge.expires_at:
        yield Reason.TOKEN_EXPIRED


def same_mailbox(left: str, right: str) -> bool:
    """Compare two addresses: the local part exactly, the domain without regard to case."""
    ours, theirs = read_address(_ascii(left)), read_address(_ascii(right))
    return ours is not None and ours == theirs


def _ascii(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _person_reasons(mail: Mail, envelope: Envelope, domain: str) -> Iterator[Reason]:
    if _is_automatic(mail):
        yield Reason.AUTOMATIC
    if mail.has_prefix(b"list-"):
        yield Reason.LIST_MAIL
    if any(field.unfolded.lower() in BULK for field in mail.named(b"precedence")):
        yield Reason.BULK
    if envelope.mail_from.strip("<> ") == "":
        yield Reason.NULL_SENDER
    if any(box is not None and box.local.lower() in ROLES for box in _senders(mail, envelope)):
        yield Reason.ROLE_SENDER
    if _holds_report(mail):
        yield Reason.REPORT
    if len(mail.named(b"content-type")) > 1:
        yield Reason.CONTENT_TYPE_NOT_SINGLE
    if not _sender_fits(mail, domain):
        yield Reason.SENDER_OTHER_DOMAIN


def _is_automatic(mail: Mail) -> bool:
    submitted = mail.named(b"auto-submitted")
    return any(field.unfolded.lower() != b"no" for field in submitted) or any(
        mail.named(name) for name in ROBOT_FIELDS
    )


def _senders(mail: Mail, envelope: Envelope) -> list[Mailbox | None]:
    fields = (*mail.named(b"from"), *mail.named(b"sender"))
    return [read_address(_ascii(envelope.mail_from)), *(read_mailbox(field.unfolded) for field in fields)]


def _sender_fits(mail: Mail, domain: str) -> bool:
    """A Sender may be there once, within the claimed domain."""
    fields = mail.named(b"sender")
    if not fields:
        return True
    sender = read_mailbox(fields[0].unfolded)
    return len(fields) == 1 and sender is not None and is_within(sender.domain, domain)


def _holds_report(mail: Mail) -> bool:
    """Say whether the mail, or any part at any depth, calls itself a report.

    Every line that reads as a Content-Type field counts, without looking at boundaries: a bounce can't hide
    in a structure that two parsers read differently.
    """
    if any(_is_report(field.value) for field in mail.named(b"content-type")):
        return True
    lines = mail.body.split(CRLF)
    return any(
        line[:13].lower().startswith(b"content-type") and _is_report(_logical(lines, index))
        for index, line in enumerate(lines)
    )


def _logical(lines: list[bytes], index: int) -> bytes:
    """Give the value that begins in line `index`, with up to three lines of its folds."""
    folds = [line for line in lines[index + 1 : index + 4] if line[:1] in (b" ", b"\t")]
    return b"".join([lines[index].partition(b":")[2], *folds])


def _is_report(value: bytes) -> bool:
    """Read `type/subtype`, blanks and comments aside."""
    kind = re.sub(rb"\([^()]{0,200}\)", b"", value[:2000].replace(CRLF, b""))
    media = kind.split(b";")[0].lower().translate(None, BLANKS)
    return media == b"multipart/report"
