"""Mails that prove a domain, by signers of several kinds, verify."""

from __future__ import annotations

from dataclasses import replace

import dkim
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from .mails import (
    DOMAIN,
    NOW,
    ORGANIZATIONAL,
    SELECTOR,
    SEND_TO,
    TOKEN,
    Letter,
    Signing,
    Trial,
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
PEM = (Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def zoned(*texts: bytes, name: str = KEY_NAME) -> dict[str, list[bytes] | None]:
    return good_zone() | {name: list(texts)}


def signed_by_dkimpy(head: bytes, body: bytes, header_mode: bytes, body_mode: bytes) -> bytes:
    mail = head + b"\r\n" + body
    signature = dkim.sign(
        mail,
        SELECTOR.encode(),
        DOMAIN.encode(),
        rsa_key().private_bytes(*PEM),
        canonicalize=(header_mode, body_mode),
    )
    return signature + mail


HEAD = f"From: office@{DOMAIN}\r\nTo: {SEND_TO}\r\nSubject: {TOKEN}\r\n".encode()
LONG_NAME = '"Office, Harbour (Events)" '
GOOD = {
    "plain": a_trial(),
    "simple/simple": a_trial(Letter().signed(canonicalisation="simple/simple")),
    "simple/relaxed": a_trial(Letter().signed(canonicalisation="simple/relaxed")),
    "relaxed/simple": a_trial(Letter().signed(canonicalisation="relaxed/simple")),
    "relaxed alone": a_trial(Letter().signed(canonicalisation="relaxed")),
    "no c= at all": a_trial(Letter().signed(canonicalisation="simple/simple", tags={"c": None})),
    "no t=": a_trial(Letter().signed(tags={"t": None})),
    "x= after receipt": a_trial(Letter().signed(tags={"x": str(NOW + 1)})),
    "x= at receipt": a_trial(Letter().signed(tags={"x": str(NOW)})),
    "t= as old as the token, less the skew": a_trial(Letter().signed(tags={"t": str(NOW - 600 - 300)})),
    "t= ahead by the skew": a_trial(Letter().signed(tags={"t": str(NOW + 300)})),
    "i= in a sub-domain": a_trial(Letter().signed(tags={"i": f"office@mail.{DOMAIN}"})),
    "q=dns/txt": a_trial(Letter().signed(tags={"q": "dns/txt"})),
    "unknown tag": a_trial(Letter().signed(tags={"zz": "whatever"})),
    "oversigned": a_trial(Letter().signed(covered="from:from:to:to:subject:subject:date")),
    "blanks around names in h=": a_trial(Letter().signed(covered="From : To : Subject")),
    "d= in capitals": a_trial(Letter().signed(domain=DOMAIN.upper())),
    "address without a name": a_trial(Letter().with_field("From", f"office@{DOMAIN}")),
    "address in angles": a_trial(Letter().with_field("From", f"<office@{DOMAIN}>")),
    "quoted name with specials": a_trial(Letter().with_field("From", f"{LONG_NAME}<office@{DOMAIN}>")),
    "name in UTF-8": a_trial(Letter().with_field("From", f"Hafenbüro <office@{DOMAIN}>")),
    "encoded name": a_trial(Letter().with_field("From", f"=?utf-8?q?Hafenb=C3=BCro?= <office@{DOMAIN}>")),
    "From's domain in capitals": a_trial(Letter().with_field("From", f"office@{DOMAIN.upper()}")),
    "To with a name": a_trial(Letter().with_field("To", f"Verify <{SEND_TO}>")),
    "folded To": a_trial(Letter().with_field("To", f"Verify\r\n <{SEND_TO}>")),
    "folded Subject": a_trial(Letter().with_field("Subject", f"\r\n {TOKEN}")),
    "Subject between blanks": a_trial(Letter().with_field("Subject", f"  {TOKEN}\t")),
    "Auto-Submitted: no": a_trial(Letter().plus("Auto-Submitted", "no")),
    "Sender of the domain": a_trial(Letter().plus("Sender", f"desk@{DOMAIN}")),
    "Received lines on top": a_trial(
        Letter().plus("Received", "from a by b; Mon, 21 Sep 2026 12:00:01 +0000")
    ),
    "multipart/alternative": a_trial(
        Letter().with_field("Content-Type", 'multipart/alternative; boundary="x"')
    ),
    "no body": a_trial(replace(Letter(), body=b"")),
    "body with trailing lines": a_trial(replace(Letter(), body=b"Hi  there \r\n\r\n\r\n")),
    "bare PKCS#1 key": a_trial(
        zone=zoned(f"v=DKIM1; p={public_base64(rsa_key(), PublicFormat.PKCS1)}".encode())
    ),
    "record without v= and k=": a_trial(zone=zoned(record(prefix=""))),
    "record with notes and services": a_trial(
        zone=zoned(record(prefix="v=DKIM1; h=sha1:sha256; k=rsa; n=ours; s=email; t=s; "))
    ),
    "record ends in ;": a_trial(zone=zoned(record() + b";")),
    "1024 bits": a_trial(Letter().signed(key=rsa_key(1024)), zone=zoned(record(rsa_key(1024)))),
    "4096 bits": a_trial(Letter().signed(key=rsa_key(4096)), zone=zoned(record(rsa_key(4096)))),
    "exponent 3": a_trial(Letter().signed(key=rsa_key(1024, 3)), zone=zoned(record(rsa_key(1024, 3)))),
    "ed25519": a_trial(
        Letter().signed(key=ed25519_key(), algorithm="ed25519-sha256"),
        zone=zoned(record(ed25519_key(), "v=DKIM1; k=ed25519; ")),
    ),
    "signed by the organizational domain": a_trial(
        Letter().signed(domain=ORGANIZATIONAL),
        zone={
            f"{SELECTOR}._domainkey.{ORGANIZATIONAL}": [record()],
            f"_dmarc.{ORGANIZATIONAL}": [b"v=DMARC1; p=reject"],
        },
    ),
    "a broken signature beside a good one": a_trial(
        replace(Letter(), signings=(Signing(broken=True), Signing(), Signing(key=other_key())))
    ),
    "a stranger's signature beside a good one": a_trial(
        replace(Letter(), signings=(Signing(domain="mailer.example.net"), Signing()))
    ),
    "another key unreachable, one good": a_trial(
        replace(Letter(), signings=(Signing(selector="s2"), Signing())),
        zone=good_zone() | {f"s2._domainkey.{DOMAIN}": None},
    ),
    "no DMARC record": a_trial(zone=good_zone() | {f"_dmarc.{DOMAIN}": []}),
    "DMARC of the organizational domain": a_trial(
        zone=good_zone() | {f"_dmarc.{DOMAIN}": [], f"_dmarc.{ORGANIZATIONAL}": [b"v=DMARC1;p=none"]}
    ),
    "other TXT beside the DMARC record": a_trial(
        zone=good_zone() | {f"_dmarc.{DOMAIN}": [b"hello", b"v=DMARC1; p=quarantine; adkim=r"]}
    ),
    "adkim=s, d= is the domain": a_trial(
        zone=good_zone() | {f"_dmarc.{DOMAIN}": [b"v=DMARC1; p=reject; adkim=s"]}
    ),
    "line ends all LF": a_trial(Letter().raw().replace(b"\r\n", b"\n")),
    "dkimpy relaxed/simple": a_trial(signed_by_dkimpy(HEAD, b"Hello\r\n", b"relaxed", b"simple")),
}


def at_signing_time(trial: Trial) -> Trial:
    """dkimpy stamps the real time."""
    from time import time

    now = int(time())
    challenge = replace(trial.challenge, issued_at=now - 60, expires_at=now + 60)
    return replace(trial, challenge=challenge, received_at=now)


@pytest.mark.parametrize("name", GOOD)
def test_good_mail_verifies(name: str) -> None:
    trial = GOOD[name]

    verdict = decide(at_signing_time(trial) if name.startswith("dkimpy") else trial)

    assert verdict.reasons == ()
    assert (verdict.outcome, verdict.level) == ("verified", "AL2")


@pytest.mark.parametrize("header_mode", [b"simple", b"relaxed"])
@pytest.mark.parametrize("body_mode", [b"simple", b"relaxed"])
@pytest.mark.parametrize("body", [b"", b"\r\n", b"a  b \r\n\r\n", b"no end", "Grüße\r\n".encode()])
def test_dkimpy_signed_mail_verifies(header_mode: bytes, body_mode: bytes, body: bytes) -> None:
    trial = a_trial(signed_by_dkimpy(HEAD, body, header_mode, body_mode))

    assert decide(at_signing_time(trial)).outcome == "verified"


def test_verdict_records_what_it_rested_on() -> None:
    checks = decide(a_trial()).checks

    [signature] = checks["dkim"]
    assert signature["is_verified"]
    assert signature["bits"] == 2048
    assert signature["domain"] == DOMAIN
    assert checks["dmarc"] == {
        "organizational_domain": DOMAIN,
        "alignment": "relaxed",
        "policy": "reject",
        "record": "v=DMARC1; p=reject",
    }
    assert len(checks["header_sha256"]) == 64
