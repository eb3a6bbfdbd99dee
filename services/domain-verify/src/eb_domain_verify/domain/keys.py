"""DKIM key records (RFC 6376 section 3.6.1), before the key itself is looked at."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from .reasons import Reason, Refused
from .signatures import ALGORITHMS, Signature
from .taglist import TagListError, read_tags

MIN_RSA_BITS = 1024
MAX_RSA_BITS = 4096
MAX_EXPONENT = 1 << 32


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A published key that this signature may use; `public` is DER (rsa) or 32 bytes (ed25519)."""

    kind: str
    public: bytes
    is_testing: bool


def read_key_record(texts: tuple[bytes, ...], signature: Signature) -> KeyRecord:
    """Read the one TXT at the key's name for `signature`; Refused with a `dkim_key_…` reason.

    Rule: docs/rules/domain-verification.md, Keys.
    """
    if not texts:
        raise Refused(Reason.DKIM_KEY_MISSING)
    if len(texts) > 1:
        raise Refused(Reason.DKIM_KEY_AMBIGUOUS)
    tags = _tags(texts[0])
    if not tags["p"]:
        raise Refused(Reason.DKIM_KEY_REVOKED)
    flags = _listed(tags.get("t", ""))
    reasons = _use_reasons(tags, flags, signature)
    if reasons:
        raise Refused(*reasons)
    return KeyRecord(tags.get("k", "rsa"), _bytes(tags["p"]), "y" in flags)


def _tags(text: bytes) -> dict[str, str]:
    """`v=` comes first and is DKIM1, if it is there; `p=` must be there."""
    try:
        tags = read_tags(text)
    except TagListError:
        raise Refused(Reason.DKIM_KEY_MALFORMED) from None
    if "p" not in tags or ("v" in tags and (next(iter(tags)) != "v" or tags["v"] != "DKIM1")):
        raise Refused(Reason.DKIM_KEY_MALFORMED)
    return tags


def _use_reasons(tags: dict[str, str], flags: list[str], signature: Signature) -> list[Reason]:
    reasons = []
    fits = tags.get("k", "rsa") == ALGORITHMS[signature.algorithm]
    if not fits or "sha256" not in _listed(tags.get("h", "sha256")):
        reasons.append(Reason.DKIM_KEY_MISMATCH)
    if not {"*", "email"} & set(_listed(tags.get("s", "*"))):
        reasons.append(Reason.DKIM_KEY_SERVICE)
    if "s" in flags and signature.identity != signature.domain:
        reasons.append(Reason.DKIM_KEY_MISMATCH)
    return reasons


def _listed(value: str) -> list[str]:
    return [item.strip(" \t") for item in value.split(":")]


def _bytes(value: str) -> bytes:
    try:
        return base64.b64decode(value.replace(" ", "").replace("\t", ""), validate=True)
    except binascii.Error:
        raise Refused(Reason.DKIM_KEY_MALFORMED) from None
