"""Factories: a good proof, every part of which a test can break, and a signer of its own that signs what it is told."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from eb_domain_verify.domain.dns import Answer, Found, MissingAnswersError
from eb_domain_verify.domain.judging import Case, Verdict, judge
from eb_domain_verify.domain.letter import Challenge, Envelope, token_digest
from eb_domain_verify.outside.crypto import verify
from eb_domain_verify.outside.suffixes import listed_suffixes

DOMAIN = "harbour.example.com"
ORGANIZATIONAL = "example.com"
SEND_TO = "c-abcdefghijklmnopqrstuvwxyz@verify.platform.test"
TOKEN = "ABCDEFGHIJKLMNOPQRSTUVWXY2"
ISSUED_AT = 1_790_000_000
NOW = ISSUED_AT + 600
SELECTOR = "s1"

Fields = list[tuple[str, str]]


@cache
def rsa_key(bits: int = 2048, exponent: int = 65537) -> RSAPrivateKey:
    """Give a key, made once per run."""
    return generate_private_key(exponent, bits)


@cache
def other_key() -> RSAPrivateKey:
    """Give somebody else's key."""
    return generate_private_key(65537, 2048)


@cache
def ed25519_key() -> Ed25519PrivateKey:
    """Give an Ed25519 key."""
    return Ed25519PrivateKey.generate()


def public_base64(key: RSAPrivateKey | Ed25519PrivateKey, form: PublicFormat | None = None) -> str:
    """Give what stands in `p=`."""
    if isinstance(key, Ed25519PrivateKey):
        return base64.b64encode(key.public_key().public_bytes_raw()).decode()
    form = form or PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, form)).decode()


def record(key: RSAPrivateKey | Ed25519PrivateKey | None = None, prefix: str = "v=DKIM1; k=rsa; ") -> bytes:
    """Give a key record."""
    return f"{prefix}p={public_base64(key or rsa_key())}".encode()


def a_challenge(**changes: Any) -> Challenge:
    """Give the challenge of a claim of DOMAIN."""
    good = Challenge(
        domain=DOMAIN,
        send_to=SEND_TO,
        token_sha256=token_digest(TOKEN),
        issued_at=ISSUED_AT,
        expires_at=ISSUED_AT + 72 * 3600,
        is_used=False,
        is_revoked=False,
    )
    return replace(good, **changes)


def good_zone(**texts: list[bytes] | None) -> dict[str, list[bytes] | None]:
    """Give the zone behind a good proof, with changes: `_` in a keyword stays, `__` is a dot."""
    zone: dict[str, list[bytes] | None] = {
        f"{SELECTOR}._domainkey.{DOMAIN}": [record()],
        f"_dmarc.{DOMAIN}": [b"v=DMARC1; p=reject"],
    }
    return zone | {name.replace("__", "."): value for name, value in texts.items()}


@dataclass(frozen=True)
class Signing:
    """How to sign; `tags` change, add or (None) take out tags after the defaults."""

    domain: str = DOMAIN
    selector: str = SELECTOR
    key: RSAPrivateKey | Ed25519PrivateKey | None = None
    algorithm: str = "rsa-sha256"
    canonicalisation: str = "relaxed/relaxed"
    covered: str = "from:to:subject:date"
    tags: dict[str, str | None] = field(default_factory=dict)
    broken: bool = False


@dataclass(frozen=True)
class Letter:
    """A mail being written. `raw()` signs it; changes made by `after` come after the signature."""

    fields: tuple[tuple[str, str], ...] = (
        ("From", f"Harbour Office <office@{DOMAIN}>"),
        ("To", SEND_TO),
        ("Subject", TOKEN),
        ("Date", "Mon, 21 Sep 2026 12:00:00 +0000"),
        ("Message-ID", f"<1@{DOMAIN}>"),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
    )
    body: bytes = b"This proves our domain.\r\n"
    signings: tuple[Signing, ...] = (Signing(),)

    def with_field(self, name: str, value: str) -> Letter:
        """Replace a field."""
        return replace(
            self, fields=tuple((n, value if n.lower() == name.lower() else v) for n, v in self.fields)
        )

    def plus(self, name: str, value: str) -> Letter:
        """Add a field at the top."""
        return replace(self, fields=((name, value), *self.fields))

    def without(self, name: str) -> Letter:
        """Take a field out."""
        return replace(self, fields=tuple(f for f in self.fields if f[0].lower() != name.lower()))

    def signed(self, **changes: Any) -> Letter:
        """Change the one signature."""
        return replace(self, signings=(replace(self.signings[0], **changes),))

    def raw(self) -> bytes:
        """Write and sign."""
        head = b"".join(f"{name}: {value}\r\n".encode() for name, value in self.fields)
        signatures = b"".join(sign(head, self.body, signing) for signing in self.signings)
        return signatures + head + b"\r\n" + self.body


def sign(head: bytes, body: bytes, signing: Signing) -> bytes:
    """Write a DKIM-Signature field over a header block and a body: independent of the code under test."""
    header_mode, _, body_mode = signing.canonicalisation.partition("/")
    digest = hashlib.sha1 if signing.algorithm.endswith("sha1") else hashlib.sha256
    tags: dict[str, str | None] = {
        "v": "1",
        "a": signing.algorithm,
        "c": signing.canonicalisation,
        "d": signing.domain,
        "s": signing.selector,
        "t": str(ISSUED_AT + 60),
        "h": signing.covered,
        "bh": base64.b64encode(digest(_canonical_body(body, body_mode or "simple")).digest()).decode(),
    }
    tags |= signing.tags
    listed = "; ".join(f"{name}={value}" for name, value in tags.items() if value is not None)
    unsigned = b"DKIM-Signature: " + listed.encode() + b"; b="
    text = _signed_text(head, tags.get("h") or "", header_mode) + _canonical_field(unsigned, header_mode)
    made = base64.b64encode(_signature(signing, text, digest)).decode()
    if signing.broken:
        made = ("A" if made[0] != "A" else "B") + made[1:]
    return unsigned + made.encode() + b"\r\n"


def _signature(signing: Signing, text: bytes, digest: Any) -> bytes:
    key = signing.key or rsa_key()
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(hashlib.sha256(text).digest())
    return key.sign(text, padding.PKCS1v15(), SHA1() if digest is hashlib.sha1 else SHA256())


def _signed_text(head: bytes, covered: str, mode: str) -> bytes:
    lines = re.findall(rb"[^\r\n]+(?:\r\n[ \t][^\r\n]*)*", head)
    text = b""
    for name in covered.lower().split(":"):
        for index in range(len(lines) - 1, -1, -1):
            if lines[index].partition(b":")[0].lower() == name.strip().encode():
                text += _canonical_field(lines.pop(index), mode) + b"\r\n"
                break
    return text


def _canonical_field(line: bytes, mode: str) -> bytes:
    if mode == "simple":
        return line
    name, _, value = line.partition(b":")
    unfolded = value.replace(b"\r\n", b"")
    return name.lower() + b":" + re.sub(rb"[ \t]+", b" ", unfolded).strip()


def _canonical_body(body: bytes, mode: str) -> bytes:
    if mode == "relaxed":
        body = b"\r\n".join(re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n"))
    while body.endswith(b"\r\n"):
        body = body[:-2]
    if mode == "relaxed" and not body:
        return b""
    return body + b"\r\n"


@dataclass(frozen=True)
class Trial:
    """One mail with all around it."""

    raw: bytes
    zone: dict[str, list[bytes] | None] = field(default_factory=good_zone)
    challenge: Challenge = field(default_factory=a_challenge)
    envelope: Envelope = field(default_factory=lambda: Envelope(f"office@{DOMAIN}", SEND_TO))
    received_at: int = NOW

    @property
    def case(self) -> Case:
        """Give what is judged."""
        return Case(self.raw, self.envelope, self.challenge, self.received_at)


def a_trial(letter: Letter | bytes | None = None, **changes: Any) -> Trial:
    """Give a trial of a letter (a good one by default)."""
    raw = letter if isinstance(letter, bytes) else (letter or Letter()).raw()
    return Trial(raw, **changes)


def answer_of(texts: list[bytes] | None) -> Answer:
    """Give the DNS answer for records, none, or (None) a failure."""
    if texts is None:
        return Answer(Found.FAILED, (), "2026-09-21T12:00:00.000000Z")
    found = Found.RECORDS if texts else Found.NOTHING
    return Answer(found, tuple(texts), "2026-09-21T12:00:00.000000Z")


def decide(trial: Trial) -> Verdict:
    """Judge a trial in this process, answering each question from its zone."""
    answers: dict[str, Answer] = {}
    while True:
        try:
            return judge(trial.case, answers, listed_suffixes(), verify)
        except MissingAnswersError as missing:
            answers |= {name: answer_of(trial.zone.get(name, [])) for name in missing.names}
