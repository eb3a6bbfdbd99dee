"""The whole verdict on one mail, as a pure function of the mail, the claim and the DNS answers so far.

What needs no DNS is judged first and refuses at once. Where an answer is missing the caller is told its name,
asks, and judges again from the start; so there is one deadline over everything and no state in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from .dmarc import DmarcPolicy, read_policy
from .dns import Answers, Found, UnansweredError, require, texts_at
from .keys import KeyRecord, read_key_record
from .letter import Challenge, Envelope, letter_reasons
from .mail import Mail, read_mail
from .names import Suffixes
from .reasons import AL1, Reason, Refused
from .signatures import Signature, read_signatures

Crypto = Callable[[Mail, Signature, KeyRecord], int]
"""Verify one signature with one key; give the key's bits, or raise Refused."""


@dataclass(frozen=True, slots=True)
class Case:
    """One mail to judge against one claim's challenge. `received_at` is in Unix seconds."""

    raw: bytes
    envelope: Envelope
    challenge: Challenge
    received_at: int


@dataclass(frozen=True, slots=True)
class SignatureVerdict:
    """What one signature that may count came to; `bits` is None unless it verified."""

    signature: Signature
    reasons: tuple[Reason, ...]
    bits: int | None = None
    is_waiting: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """`outcome` is verified, refused or waiting; `level` AL1, AL2 or None; `checks` is shown to staff."""

    outcome: str
    reasons: tuple[str, ...]
    level: str | None = None
    checks: dict[str, object] = field(default_factory=dict)


def judge(case: Case, answers: Answers, suffixes: Suffixes, crypto: Crypto) -> Verdict:
    """Judge a mail. Raises MissingAnswersError naming what must be asked first; else the verdict is final for
    these answers. Rule: docs/rules/domain-verification.md, What counts as proof."""
    try:
        mail = read_mail(case.raw)
        signatures = _counting_signatures(mail, case, suffixes)
        require(answers, _names(signatures, case.challenge.domain))
    except Refused as refused:
        return Verdict("refused", _codes(refused.reasons))
    return _judge_signed(mail, case, signatures, answers, suffixes, crypto)


def _counting_signatures(mail: Mail, case: Case, suffixes: Suffixes) -> list[Signature]:
    """Give the signatures worth a DNS question, Refused with everything that is wrong if there is none."""
    letter = letter_reasons(mail, case.envelope, case.challenge, case.received_at)
    counting, reasons = read_signatures(mail, case.challenge, case.received_at, suffixes)
    if Reason.TOO_COSTLY in reasons:
        raise Refused(Reason.TOO_COSTLY)
    if letter or not counting:
        raise Refused(*letter, *([] if counting else reasons))
    return counting


def _names(signatures: list[Signature], domain: str) -> list[str]:
    return [*(signature.key_name for signature in signatures), f"_dmarc.{domain}"]


def _judge_signed(
    mail: Mail,
    case: Case,
    signatures: list[Signature],
    answers: Answers,
    suffixes: Suffixes,
    crypto: Crypto,
) -> Verdict:
    """DMARC first, as it needs no crypto; a failed question about it waits, whatever the signatures say."""
    domain = case.challenge.domain
    try:
        policy = read_policy(domain, answers, suffixes)
    except Refused as refused:
        return Verdict("refused", _codes(refused.reasons))
    except UnansweredError:
        return Verdict("waiting", (Reason.DNS_UNAVAILABLE,), checks={"dns_failed": _failed(answers)})
    verdicts = _try_in_order(mail, signatures, policy, domain, answers, crypto)
    return _conclude(mail, verdicts, policy, answers)


def _try_in_order(
    mail: Mail,
    signatures: list[Signature],
    policy: DmarcPolicy,
    domain: str,
    answers: Answers,
    crypto: Crypto,
) -> list[SignatureVerdict]:
    """Try the signatures from the top; stop at the first that verifies."""
    verdicts: list[SignatureVerdict] = []
    for signature in signatures:
        if not policy.accepts(signature.domain, domain):
            verdicts.append(SignatureVerdict(signature, (Reason.DMARC_UNALIGNED,)))
            continue
        verdicts.append(_try_signature(mail, signature, answers, crypto))
        if verdicts[-1].bits is not None:
            break
    return verdicts


def _try_signature(mail: Mail, signature: Signature, answers: Answers, crypto: Crypto) -> SignatureVerdict:
    try:
        key = read_key_record(texts_at(answers, signature.key_name), signature)
        bits = crypto(mail, signature, key)
    except UnansweredError:
        return SignatureVerdict(signature, (Reason.DNS_UNAVAILABLE,), is_waiting=True)
    except Refused as refused:
        return SignatureVerdict(signature, refused.reasons)
    if key.is_testing:
        return SignatureVerdict(signature, (Reason.DKIM_KEY_TESTING,))
    return SignatureVerdict(signature, (), bits)


def _conclude(mail: Mail, verdicts: list[SignatureVerdict], policy: DmarcPolicy, answers: Answers) -> Verdict:
    """One good signature verifies; else one that could still turn out good waits; else all reasons refuse."""
    checks: dict[str, object] = {
        "header_sha256": hashlib.sha256(mail.header_block).hexdigest(),
        "dkim": [_dkim_check(verdict) for verdict in verdicts],
        "dmarc": _dmarc_check(policy),
        "dns_failed": _failed(answers),
    }
    reasons = [reason for verdict in verdicts for reason in verdict.reasons]
    if any(verdict.bits is not None for verdict in verdicts):
        return Verdict("verified", (), "AL2", checks)
    if any(verdict.is_waiting for verdict in verdicts):
        return Verdict("waiting", (Reason.DNS_UNAVAILABLE,), None, checks)
    return Verdict("refused", _codes(reasons), "AL1" if AL1 & set(reasons) else None, checks)


def _codes(reasons: tuple[Reason, ...] | list[Reason]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(reason) for reason in reasons))


def _failed(answers: Answers) -> list[str]:
    return sorted(name for name, answer in answers.items() if answer.found is Found.FAILED)


def _dkim_check(verdict: SignatureVerdict) -> dict[str, object]:
    signature = verdict.signature
    return {
        "domain": signature.domain,
        "selector": signature.selector,
        "algorithm": signature.algorithm,
        "canonicalisation": signature.canonicalisation,
        "covered": list(signature.covered),
        "is_verified": verdict.bits is not None,
        "bits": verdict.bits,
        "reasons": list(_codes(verdict.reasons)),
    }


def _dmarc_check(policy: DmarcPolicy) -> dict[str, object]:
    return {
        "organizational_domain": policy.organizational,
        "alignment": policy.mode,
        "policy": policy.policy,
        "record": policy.record,
    }
