"""DKIM-Signature fields: read, and judged by policy before any DNS or crypto.

dkimpy verifies signatures that don't cover From, that cover part of the body, that are made with SHA-1 or are
expired by hours; none of these gets as far as dkimpy here. Rule: docs/rules/domain-verification.md, Signatures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .letter import Challenge
from .mail import Field, Mail
from .names import Suffixes, is_host_name, is_within
from .reasons import Reason, Refused
from .taglist import TagListError, read_tags

ALGORITHMS = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
"""What may sign, and the key type it needs."""
CANONICAL = frozenset(
    {"simple", "relaxed", "simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"}
)
COVERED = frozenset({"from", "to", "subject"})
REQUIRED = ("v", "a", "b", "bh", "d", "h", "s")
SKEW_S = 300
MAX_NAMES = 256
"""More names in `h=` than this is no mail server's signature, and costs time for each field of the mail."""

_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9])?")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{1,1366}={0,2}")
_TIME = re.compile(r"[0-9]{1,12}", re.ASCII)
_FIELD_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]+")


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that may count; `index` is its place among the mail's signatures, topmost 0."""

    index: int
    domain: str
    selector: str
    algorithm: str
    canonicalisation: str
    covered: tuple[str, ...]
    identity: str
    tags: dict[str, str]

    @property
    def key_name(self) -> str:
        """Name where the key is published."""
        return f"{self.selector}._domainkey.{self.domain}"


def read_signatures(
    mail: Mail, challenge: Challenge, received_at: int, suffixes: Suffixes
) -> tuple[list[Signature], list[Reason]]:
    """Give the signatures that may count, and why each of the others doesn't (`dkim_missing` if none is there)."""
    fields = mail.named(b"dkim-signature")
    counting: list[Signature] = []
    reasons: list[Reason] = [] if fields else [Reason.DKIM_MISSING]
    for index, field in enumerate(fields):
        try:
            counting.append(_signature(index, field, challenge, received_at, suffixes))
        except Refused as refused:
            reasons.extend(refused.reasons)
    return counting, reasons


def _signature(
    index: int, field: Field, challenge: Challenge, received_at: int, suffixes: Suffixes
) -> Signature:
    signature = _well_formed(index, field)
    reasons = [
        *_scope_reasons(signature),
        *_time_reasons(signature.tags, challenge, received_at),
        *_domain_reasons(signature.domain, challenge.domain, suffixes),
    ]
    if reasons:
        raise Refused(*reasons)
    return signature


def _well_formed(index: int, field: Field) -> Signature:
    """Read the field; Refused with `dkim_malformed`, `dkim_algorithm` or `too_costly`."""
    try:
        tags = read_tags(field.value)
    except TagListError:
        raise Refused(Reason.DKIM_MALFORMED) from None
    if any(name not in tags for name in REQUIRED) or not _values_fit(tags):
        raise Refused(Reason.DKIM_MALFORMED)
    if tags["a"] not in ALGORITHMS:
        raise Refused(Reason.DKIM_ALGORITHM)
    return Signature(
        index=index,
        domain=tags["d"].lower(),
        selector=tags["s"].lower(),
        algorithm=tags["a"],
        canonicalisation=tags.get("c", "simple/simple"),
        covered=_covered(tags["h"]),
        identity=_identity(tags),
        tags=tags,
    )


def _values_fit(tags: dict[str, str]) -> bool:
    return (
        tags["v"] == "1"
        and is_host_name(tags["d"].lower())
        and _SELECTOR.fullmatch(tags["s"]) is not None
        and ".." not in tags["s"]
        and all(_is_base64(tags[name]) for name in ("b", "bh"))
        and tags.get("c", "simple") in CANONICAL
        and "dns/txt" in tags.get("q", "dns/txt").replace(" ", "").split(":")
        and all(_TIME.fullmatch(tags[name]) is not None for name in ("t", "x") if name in tags)
    )


def _is_base64(value: str) -> bool:
    packed = value.replace(" ", "").replace("\t", "")
    return len(packed) % 4 == 0 and _BASE64.fullmatch(packed) is not None


def _covered(value: str) -> tuple[str, ...]:
    """Read `h=`: field names in order, lower case; an empty or impossible name breaks the signature."""
    names = tuple(name.strip(" \t").lower() for name in value.split(":"))
    if len(names) > MAX_NAMES:
        raise Refused(Reason.TOO_COSTLY)
    if not all(_FIELD_NAME.fullmatch(name) for name in names):
        raise Refused(Reason.DKIM_MALFORMED)
    return names


def _identity(tags: dict[str, str]) -> str:
    """Give the domain of `i=` (`d=` if absent); it lies within `d=`."""
    domain = tags["d"].lower()
    identity = tags.get("i", "@" + domain).rpartition("@")[2].lower()
    if "@" not in tags.get("i", "@") or not is_within(identity, domain) or not is_host_name(identity):
        raise Refused(Reason.DKIM_MALFORMED)
    return identity


def _scope_reasons(signature: Signature) -> list[Reason]:
    reasons = []
    if not set(signature.covered) >= COVERED:
        reasons.append(Reason.DKIM_FIELDS_UNCOVERED)
    if "l" in signature.tags:
        reasons.append(Reason.DKIM_LENGTH_TAG)
    return reasons


def _time_reasons(tags: dict[str, str], challenge: Challenge, received_at: int) -> list[Reason]:
    """`x=` is judged at receipt; `t=` lies between the token's birth and receipt, give or take the skew."""
    reasons = []
    if "x" in tags and (received_at > int(tags["x"]) or int(tags["x"]) < int(tags.get("t", "0"))):
        reasons.append(Reason.DKIM_EXPIRED)
    if "t" in tags and int(tags["t"]) > received_at + SKEW_S:
        reasons.append(Reason.DKIM_FUTURE)
    if "t" in tags and int(tags["t"]) < challenge.issued_at - SKEW_S:
        reasons.append(Reason.DKIM_OLDER_THAN_TOKEN)
    return reasons


def _domain_reasons(signer: str, claimed: str, suffixes: Suffixes) -> list[Reason]:
    """`d=` is the claimed domain or above it, up to the organizational one; below it proves nothing."""
    if suffixes.organizational(signer) is None:
        return [Reason.DKIM_DOMAIN_PUBLIC_SUFFIX]
    return [] if is_within(claimed, signer) else [Reason.DKIM_DOMAIN_UNALIGNED]
