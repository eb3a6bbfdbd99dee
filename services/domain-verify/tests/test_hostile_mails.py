"""Mails that prove nothing, each refused for its own reason."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from eb_domain_verify.domain.letter import Envelope

from .mails import (
    DOMAIN,
    ISSUED_AT,
    NOW,
    ORGANIZATIONAL,
    SELECTOR,
    SEND_TO,
    TOKEN,
    Letter,
    Signing,
    Trial,
    a_challenge,
    a_trial,
    decide,
    ed25519_key,
    good_zone,
    other_key,
    public_base64,
    record,
    rsa_key,
)

KEY_NAME = f"{SELECTOR}._domainkey.{DOMAIN}"
GOOD = Letter()
RAW = GOOD.raw()
REPORT = b"--x\r\nContent-Type: Multipart/\r\n Report; boundary=y\r\n\r\n--y--\r\n--x--\r\n"


def key(*texts: bytes) -> dict[str, list[bytes] | None]:
    return good_zone() | {KEY_NAME: list(texts)}


def dmarc(*texts: bytes, at: str = DOMAIN) -> dict[str, list[bytes] | None]:
    return good_zone() | {f"_dmarc.{DOMAIN}": [], f"_dmarc.{at}": list(texts)}


def sent(mail_from: str, rcpt_to: str = SEND_TO) -> Trial:
    return a_trial(envelope=Envelope(mail_from, rcpt_to))


def from_(value: str) -> Trial:
    return a_trial(GOOD.with_field("From", value))


def to(value: str) -> Trial:
    return a_trial(GOOD.with_field("To", value))


def subject(value: str) -> Trial:
    return a_trial(GOOD.with_field("Subject", value))


def plus(name: str, value: str) -> Trial:
    return a_trial(GOOD.plus(name, value))


def tags(**changes: str | None) -> Trial:
    return a_trial(GOOD.signed(tags=changes))


def rsa_record_with(bits: int, exponent: int) -> bytes:
    """A key record whose numbers no honest generator gives."""
    import base64

    modulus = (1 << (bits - 1)) | 0xABCDEF01

    def integer(value: int) -> bytes:
        body = value.to_bytes(value.bit_length() // 8 + 1, "big")
        return b"\x02" + length(body) + body

    def length(body: bytes) -> bytes:
        if len(body) < 128:
            return bytes([len(body)])
        size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
        return bytes([0x80 | len(size)]) + size

    numbers = integer(modulus) + integer(exponent)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(b"\x30" + length(numbers) + numbers)


HOSTILE: dict[str, tuple[Trial, str]] = {
    # bytes
    "bare CR in the header": (a_trial(RAW.replace(b"MIME-Version", b"X: a\rb\r\nMIME-Version")), "malformed"),
    "bare CR in the body": (a_trial(replace(GOOD, body=b"a\rb\r\n")), "malformed"),
    "bare LF in CRLF mail": (a_trial(replace(GOOD, body=b"a\nb\r\n")), "malformed"),
    "LF CR": (a_trial(replace(GOOD, body=b"a\n\rb\r\n")), "malformed"),
    "NUL in the header": (a_trial(RAW.replace(b"Office", b"Off\x00ice")), "malformed"),
    "NUL in the body": (a_trial(replace(GOOD, body=b"a\x00b\r\n")), "malformed"),
    "fold of blanks only": (a_trial(RAW.replace(b"MIME-Version: 1.0", b"X: a\r\n \t\r\nY: b")), "malformed"),
    "field without a colon": (a_trial(b"Hello\r\n" + RAW), "malformed"),
    "blank before the colon": (a_trial(RAW.replace(b"Subject:", b"Subject :")), "malformed"),
    "mbox From line": (a_trial(b"From office Mon Sep 21\r\n" + RAW), "malformed"),
    "begins with a fold": (a_trial(b" From: a@b.example\r\n" + RAW), "malformed"),
    "8-bit field name": (a_trial("Fröm: a\r\n".encode() + RAW), "malformed"),
    "empty": (a_trial(b""), "malformed"),
    "only a body": (a_trial(b"\r\n\r\nHello\r\n"), "malformed"),
    "201 fields": (a_trial(b"X: y\r\n" * 194 + RAW), "too_costly"),
    "header over 64 KiB": (a_trial(b"X: " + b"y" * 65536 + b"\r\n" + RAW), "too_costly"),
    "over 1 MiB": (a_trial(RAW + b"x" * (1 << 20)), "too_costly"),
    "11 signatures": (a_trial(replace(GOOD, signings=(Signing(),) * 11)), "too_costly"),
    "h= with 300 names": (a_trial(GOOD.signed(covered="from:to:subject" + ":x" * 300)), "too_costly"),
    # the three fields
    "forged From": (from_("boss@victim.example"), "from_domain_mismatch"),
    "From in a sub-domain": (from_(f"office@mail.{DOMAIN}"), "from_domain_mismatch"),
    "From in the domain above": (from_(f"office@{ORGANIZATIONAL}"), "from_domain_mismatch"),
    "From ends alike": (from_(f"office@not{DOMAIN}"), "from_domain_mismatch"),
    "two From": (plus("From", f"other@{DOMAIN}"), "from_not_single"),
    "two From, other case": (plus("FROM", f"other@{DOMAIN}"), "from_not_single"),
    "no From": (a_trial(GOOD.without("From")), "from_not_single"),
    "two mailboxes in From": (from_(f"a@{DOMAIN}, b@{DOMAIN}"), "from_malformed"),
    "group in From": (from_(f"Office: a@{DOMAIN};"), "from_malformed"),
    "route in From": (from_(f"<@relay.example:a@{DOMAIN}>"), "from_malformed"),
    "quoted local part": (from_(f'"a b"@{DOMAIN}'), "from_malformed"),
    "address literal": (from_("office@[192.0.2.1]"), "from_malformed"),
    "trailing dot": (from_(f"office@{DOMAIN}."), "from_malformed"),
    "comment in From": (from_(f"office@{DOMAIN} (office)"), "from_malformed"),
    "comment before the address": (from_(f"(x@y.example) office@{DOMAIN}"), "from_malformed"),
    "two angles": (from_(f"<a@victim.example> <office@{DOMAIN}>"), "from_malformed"),
    "unquoted @ in the name": (from_(f"boss@victim.example <office@{DOMAIN}>"), "from_malformed"),
    "unclosed quote": (from_(f'"Office <office@{DOMAIN}>'), "from_malformed"),
    "encoded address": (from_(f"=?utf-8?q?office=40{DOMAIN}?="), "from_malformed"),
    "empty From": (from_(""), "from_malformed"),
    "U-label in From": (from_("office@hafen-bü.example"), "from_malformed"),
    "two To": (plus("To", SEND_TO), "to_not_single"),
    "no To": (a_trial(GOOD.without("To")), "to_not_single"),
    "two mailboxes in To": (to(f"{SEND_TO}, a@b.example"), "to_malformed"),
    "other To": (to("c-other@verify.platform.test"), "to_mismatch"),
    "plus address in To": (to(SEND_TO.replace("@", "+x@")), "to_mismatch"),
    "To in capitals": (to(SEND_TO.upper()), "to_mismatch"),
    "wrong envelope recipient": (
        sent(f"office@{DOMAIN}", "other@verify.platform.test"),
        "envelope_to_mismatch",
    ),
    "two Subjects": (plus("Subject", TOKEN), "subject_not_single"),
    "no Subject": (a_trial(GOOD.without("Subject")), "subject_not_single"),
    "Re:": (subject(f"Re: {TOKEN}"), "subject_not_token"),
    "words behind the token": (subject(f"{TOKEN} please"), "subject_not_token"),
    "encoded Subject": (subject("=?utf-8?q?" + TOKEN + "?="), "subject_not_token"),
    "base64 Subject": (subject("=?utf-8?b?QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWTI=?="), "subject_not_token"),
    "token in small letters": (subject(TOKEN.lower()), "subject_not_token"),
    "token cut by a fold": (subject(TOKEN[:13] + "\r\n " + TOKEN[13:]), "subject_not_token"),
    "token with no-break space": (subject(TOKEN + "\u00a0"), "subject_not_token"),
    "token in the body only": (
        a_trial(replace(GOOD.with_field("Subject", "hi"), body=TOKEN.encode())),
        "subject_not_token",
    ),
    "another claim's token": (subject("B" * 26), "token_wrong"),
    "replayed token": (a_trial(challenge=a_challenge(is_used=True)), "token_used"),
    "expired token": (a_trial(challenge=a_challenge(expires_at=NOW)), "token_expired"),
    "revoked claim": (a_trial(challenge=a_challenge(is_revoked=True)), "claim_revoked"),
    "Resent-From": (plus("Resent-From", f"a@{DOMAIN}"), "resent"),
    "Resent-Message-ID": (plus("Resent-Message-ID", "<1@x>"), "resent"),
    "In-Reply-To": (plus("In-Reply-To", "<1@x>"), "reply"),
    "References": (plus("References", "<1@x>"), "reply"),
    # a person's mail
    "Auto-Submitted": (plus("Auto-Submitted", "auto-replied"), "automatic"),
    "Auto-Submitted: no, yes": (
        a_trial(GOOD.plus("Auto-Submitted", "no").plus("Auto-Submitted", "auto-generated")),
        "automatic",
    ),
    "X-Autoreply": (plus("X-Autoreply", "yes"), "automatic"),
    "X-Auto-Response-Suppress": (plus("X-Auto-Response-Suppress", "All"), "automatic"),
    "Feedback-ID": (plus("Feedback-ID", "1:2:3:esp"), "automatic"),
    "List-Unsubscribe": (plus("List-Unsubscribe", "<https://x.example>"), "list_mail"),
    "List-Id": (plus("List-Id", "<x.example>"), "list_mail"),
    "Precedence: bulk": (plus("Precedence", "Bulk"), "bulk"),
    "Precedence: auto_reply": (plus("Precedence", "auto_reply"), "bulk"),
    "null sender": (sent(""), "null_sender"),
    "null sender in angles": (sent("<>"), "null_sender"),
    "MAILER-DAEMON": (from_(f"MAILER-DAEMON@{DOMAIN}"), "role_sender"),
    "postmaster in the envelope": (sent(f"Postmaster@{DOMAIN}"), "role_sender"),
    "bounce": (
        a_trial(GOOD.with_field("Content-Type", "multipart/report; report-type=delivery-status")),
        "report",
    ),
    "bounce with a comment": (a_trial(GOOD.with_field("Content-Type", "multipart(x)/ report")), "report"),
    "nested bounce": (a_trial(replace(GOOD, body=REPORT)), "report"),
    "two Content-Types": (plus("Content-Type", "text/plain"), "content_type_not_single"),
    "Sender elsewhere": (plus("Sender", "esp@mailer.example.net"), "sender_other_domain"),
    "two Senders": (
        a_trial(GOOD.plus("Sender", f"a@{DOMAIN}").plus("Sender", f"b@{DOMAIN}")),
        "sender_other_domain",
    ),
    # signatures before DNS
    "unsigned": (a_trial(replace(GOOD, signings=())), "dkim_missing"),
    "l=": (tags(l="10"), "dkim_length_tag"),
    "l=0": (tags(l="0"), "dkim_length_tag"),
    "h= without Subject": (a_trial(GOOD.signed(covered="from:to:date")), "dkim_fields_uncovered"),
    "h= without From": (a_trial(GOOD.signed(covered="to:subject:date")), "dkim_fields_uncovered"),
    "h= without To": (a_trial(GOOD.signed(covered="from:subject")), "dkim_fields_uncovered"),
    "empty h=": (a_trial(GOOD.signed(covered="")), "dkim_malformed"),
    "empty name in h=": (a_trial(GOOD.signed(covered="from::to:subject")), "dkim_malformed"),
    "rsa-sha1": (a_trial(GOOD.signed(algorithm="rsa-sha1")), "dkim_algorithm"),
    "unknown algorithm": (tags(a="rsa-sha512"), "dkim_algorithm"),
    "expired": (tags(x=str(NOW - 1)), "dkim_expired"),
    "expired before it was signed": (tags(x=str(NOW + 10), t=str(NOW + 20)), "dkim_expired"),
    "future t=": (tags(t=str(NOW + 301)), "dkim_future"),
    "older than the token": (tags(t=str(ISSUED_AT - 301)), "dkim_older_than_token"),
    "subdomain d=": (a_trial(GOOD.signed(domain=f"mail.{DOMAIN}")), "dkim_domain_unaligned"),
    "stranger's d=": (a_trial(GOOD.signed(domain="victim.example")), "dkim_domain_unaligned"),
    "sibling d=": (a_trial(GOOD.signed(domain="other.example.com")), "dkim_domain_unaligned"),
    "public-suffix d=": (a_trial(GOOD.signed(domain="co.uk")), "dkim_domain_public_suffix"),
    "private-suffix d=": (a_trial(GOOD.signed(domain="github.io")), "dkim_domain_public_suffix"),
    "single-label d=": (a_trial(GOOD.signed(domain="com")), "dkim_malformed"),
    "v=2": (tags(v="2"), "dkim_malformed"),
    "no v=": (tags(v=None), "dkim_malformed"),
    "no bh=": (tags(bh=None), "dkim_malformed"),
    "bad bh=": (tags(bh="!!!"), "dkim_malformed"),
    "unknown c=": (tags(c="nowsp/simple"), "dkim_malformed"),
    "i= outside d=": (tags(i="@example.com"), "dkim_malformed"),
    "q=http": (tags(q="http"), "dkim_malformed"),
    "negative x=": (tags(x="-1"), "dkim_malformed"),
    "x= in other digits": (tags(x="١٧٩٠٠٠٠٠٠٠"), "dkim_malformed"),
    "a tag twice": (a_trial(RAW.replace(b"; s=", b"; d=victim.example; s=", 1)), "dkim_malformed"),
    "empty tag": (a_trial(RAW.replace(b"; s=", b";; s=", 1)), "dkim_malformed"),
    "selector with a dot at its end": (tags(s="s1."), "dkim_malformed"),
    "selector that leaves the domain": (tags(s="s1/../x"), "dkim_malformed"),
    # keys
    "no key": (a_trial(zone=key()), "dkim_key_missing"),
    "two keys": (a_trial(zone=key(record(), record())), "dkim_key_ambiguous"),
    "key revoked": (a_trial(zone=key(b"v=DKIM1; k=rsa; p=")), "dkim_key_revoked"),
    "k mismatch": (a_trial(zone=key(record(prefix="v=DKIM1; k=ed25519; "))), "dkim_key_mismatch"),
    "rsa key for an ed25519 signature": (
        a_trial(GOOD.signed(key=ed25519_key(), algorithm="ed25519-sha256")),
        "dkim_key_mismatch",
    ),
    "ed25519 key of the wrong length": (
        a_trial(
            GOOD.signed(key=ed25519_key(), algorithm="ed25519-sha256"),
            zone=key(b"v=DKIM1; k=ed25519; p=AAAA"),
        ),
        "dkim_key_malformed",
    ),
    "key only for sha1": (a_trial(zone=key(record(prefix="v=DKIM1; h=sha1; "))), "dkim_key_mismatch"),
    "key for another service": (a_trial(zone=key(record(prefix="v=DKIM1; s=tlsrpt; "))), "dkim_key_service"),
    "t=s and i= below": (
        a_trial(GOOD.signed(tags={"i": f"@mail.{DOMAIN}"}), zone=key(record(prefix="v=DKIM1; t=s; "))),
        "dkim_key_mismatch",
    ),
    "key in test mode": (a_trial(zone=key(record(prefix="v=DKIM1; t=y:s; "))), "dkim_key_testing"),
    "v= not first": (
        a_trial(zone=key(b"k=rsa; v=DKIM1; p=" + public_base64(rsa_key()).encode())),
        "dkim_key_malformed",
    ),
    "v=DKIM2": (a_trial(zone=key(record(prefix="v=DKIM2; "))), "dkim_key_malformed"),
    "no p=": (a_trial(zone=key(b"v=DKIM1; k=rsa")), "dkim_key_malformed"),
    "p= no base64": (a_trial(zone=key(b"v=DKIM1; p=****")), "dkim_key_malformed"),
    "p= no key": (a_trial(zone=key(b"v=DKIM1; p=AAAA")), "dkim_key_malformed"),
    "record of something else": (a_trial(zone=key(b"v=spf1 -all")), "dkim_key_malformed"),
    "key of 512 bits": (a_trial(zone=key(rsa_record_with(512, 65537))), "dkim_key_weak"),
    "key of 8192 bits": (a_trial(zone=key(rsa_record_with(8192, 65537))), "dkim_key_weak"),
    "exponent over 2^32": (a_trial(zone=key(rsa_record_with(1024, 2**32 + 1))), "dkim_key_weak"),
    "exponent 1": (a_trial(zone=key(rsa_record_with(1024, 1))), "dkim_key_malformed"),
    "even exponent": (a_trial(zone=key(rsa_record_with(1024, 4))), "dkim_key_malformed"),
    # crypto
    "signed by another key": (a_trial(GOOD.signed(key=other_key())), "dkim_signature_wrong"),
    "broken signature": (a_trial(GOOD.signed(broken=True)), "dkim_signature_wrong"),
    "body changed": (a_trial(RAW + b"P.S.\r\n"), "dkim_body_hash"),
    "covered Date changed": (a_trial(RAW.replace(b"12:00:00", b"13:00:00")), "dkim_signature_wrong"),
    "simple signature, folded later": (
        a_trial(
            GOOD.signed(canonicalisation="simple/simple")
            .raw()
            .replace(f"Subject: {TOKEN}".encode(), f"Subject:\r\n {TOKEN}".encode())
        ),
        "dkim_signature_wrong",
    ),
    # DMARC
    "two DMARC records": (
        a_trial(zone=dmarc(b"v=DMARC1; p=none", b"v=DMARC1; p=reject")),
        "dmarc_unreadable",
    ),
    "unknown p=": (a_trial(zone=dmarc(b"v=DMARC1; p=maybe")), "dmarc_unreadable"),
    "unknown adkim=": (a_trial(zone=dmarc(b"v=DMARC1; p=none; adkim=x")), "dmarc_unreadable"),
    "broken DMARC list": (a_trial(zone=dmarc(b"v=DMARC1; p=none; p=reject")), "dmarc_unreadable"),
    "unreadable DMARC above": (a_trial(zone=dmarc(b"v=DMARC1; p=!", at=ORGANIZATIONAL)), "dmarc_unreadable"),
    "adkim=s and d= above": (
        a_trial(
            GOOD.signed(domain=ORGANIZATIONAL),
            zone=dmarc(b"v=DMARC1; p=none; adkim=s")
            | {f"{SELECTOR}._domainkey.{ORGANIZATIONAL}": [record()]},
        ),
        "dmarc_unaligned",
    ),
    "tree walk makes the domain its own organization": (
        a_trial(
            GOOD.signed(domain=ORGANIZATIONAL),
            zone=dmarc(b"v=DMARC1; p=none; psd=n") | {f"{SELECTOR}._domainkey.{ORGANIZATIONAL}": [record()]},
        ),
        "dmarc_unaligned",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mail_is_refused_with_its_reason(name: str) -> None:
    trial, reason = HOSTILE[name]

    verdict = decide(trial)

    assert verdict.outcome == "refused"
    assert reason in verdict.reasons


def test_a_weak_or_testing_key_is_level_al1() -> None:
    weak, testing, wrong = (
        decide(HOSTILE[name][0]).level for name in ("key of 512 bits", "key in test mode", "broken signature")
    )

    assert (weak, testing, wrong) == ("AL1", "AL1", None)


def test_all_that_is_wrong_is_told_at_once() -> None:
    letter = GOOD.with_field("Subject", "hello").plus("List-Id", "<x>").without("To")

    assert set(decide(a_trial(letter)).reasons) == {"subject_not_token", "list_mail", "to_not_single"}


def test_what_needs_no_dns_asks_none() -> None:
    silent = dict.fromkeys(good_zone(), None)

    verdict = decide(a_trial(GOOD.with_field("Subject", "hello"), zone=silent))

    assert verdict.outcome == "refused"


@pytest.mark.parametrize(
    "failed", [KEY_NAME, f"_dmarc.{DOMAIN}", f"_dmarc.{ORGANIZATIONAL}"], ids=["key", "dmarc", "dmarc above"]
)
def test_a_failed_question_that_matters_waits(failed: str) -> None:
    verdict = decide(a_trial(zone=good_zone() | {failed: None}))

    assert (verdict.outcome, verdict.reasons) == ("waiting", ("dns_unavailable",))


BLANKS = {
    "blanks in the body": replace(GOOD, body=b" " * 900_000 + b"x\r\n").raw(),
    "blank lines of blanks": replace(GOOD, body=b" \t \r\n" * 100_000).raw(),
    "blanks in b=": RAW.replace(b"; b=", b"; b=" + b" " * 40_000, 1),
    "folds in b=": RAW.replace(b"; b=", b"; b=" + b"\r\n A" * 12_000, 1),
    "blanks behind another b": RAW.replace(b"; s=", b"; zz=b" + b" " * 40_000 + b"; s=", 1),
    "blanks in From": GOOD.with_field("From", " " * 40_000 + f"office@{DOMAIN}").raw(),
    "quotes in From": GOOD.with_field("From", '"\\' * 20_000 + f"<office@{DOMAIN}>").raw(),
    "nested parts": replace(
        GOOD, body=b"--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n" * 15_000
    ).raw(),
    "comments in Content-Type": GOOD.with_field("Content-Type", "(" * 60_000).raw(),
    "deep h=": GOOD.signed(covered="from:to:subject" + ":x" * 30_000).raw(),
}


@pytest.mark.parametrize("name", [name for name in BLANKS if name != "blanks in the body"])
def test_our_own_reading_is_linear(name: str) -> None:
    started = time.process_time()

    decide(a_trial(BLANKS[name]))

    assert time.process_time() - started < 1.0
