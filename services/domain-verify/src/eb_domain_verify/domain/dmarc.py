"""DMARC as far as a proof needs it: the organizational domain, and how strictly a signer must be aligned.

RFC 9989's tree walk, bounded by the public suffix list: a record at or above a public suffix could only make
the organizational domain shorter than the list's, and the longer of the two counts.
Rule: docs/rules/domain-verification.md, DMARC.
"""

from __future__ import annotations

from dataclasses import dataclass

from .dns import Answers, require, texts_at
from .names import Suffixes, above, is_within
from .reasons import Reason, Refused
from .taglist import TagListError, read_tags

POLICIES = frozenset({"none", "quarantine", "reject"})
MODES = {"r": "relaxed", "s": "strict"}
MAX_LABELS = 8
WALK_LABELS = 7


@dataclass(frozen=True, slots=True)
class Record:
    """A readable DMARC record: its tags in small letters, and the text as published."""

    tags: dict[str, str]
    text: str

    def tag(self, name: str, otherwise: str = "") -> str:
        """Give a tag's value."""
        return self.tags.get(name, otherwise)


@dataclass(frozen=True, slots=True)
class DmarcPolicy:
    """What applies to a From domain; `record` is the TXT it was read from, None if there is none."""

    organizational: str
    mode: str
    policy: str
    record: str | None

    def accepts(self, signer: str, domain: str) -> bool:
        """Say whether a signature of `signer` is aligned with the From domain `domain`.

        The signer is `domain` itself, or, when relaxed, lies between it and the organizational domain.
        """
        if self.mode == "strict":
            return signer == domain
        return is_within(domain, signer) and is_within(signer, self.organizational)


def read_policy(domain: str, answers: Answers, suffixes: Suffixes) -> DmarcPolicy:
    """Find the policy for mail from `domain`.

    Raises MissingAnswersError (what to ask), UnansweredError, or Refused with `dmarc_unreadable` when two
    records stand at one name or `p=`, `adkim=` or the list itself can't be read.
    """
    walk = walk_names(domain, suffixes)
    require(answers, [f"_dmarc.{name}" for name in walk])
    records = {name: _record(texts_at(answers, f"_dmarc.{name}")) for name in walk}
    found = {name: record for name, record in records.items() if record is not None}
    organizational = _organizational(domain, found, suffixes)
    record = found.get(domain) or found.get(organizational)
    if record is None:
        return DmarcPolicy(organizational, "relaxed", "none", None)
    return DmarcPolicy(organizational, MODES[record.tag("adkim", "r")], record.tag("p", "none"), record.text)


def walk_names(domain: str, suffixes: Suffixes) -> list[str]:
    """List the names to look at, the longest first, from `domain` to the suffix list's organizational domain."""
    top = suffixes.organizational(domain) or domain
    names = [name for name in above(domain) if is_within(name, top)]
    if domain.count(".") >= MAX_LABELS:
        return [domain, *(name for name in names if name.count(".") < WALK_LABELS)]
    return names


def _organizational(domain: str, found: dict[str, Record], suffixes: Suffixes) -> str:
    """Give the longer of the suffix list's answer and the tree walk's."""
    listed = suffixes.organizational(domain) or domain
    return max(_walked(domain, found) or listed, listed, key=len)


def _walked(domain: str, found: dict[str, Record]) -> str | None:
    """Give the tree walk's organizational domain; `found` is in walking order. None without a record."""
    for name, record in found.items():
        if record.tag("psd") == "n":
            return name
        if record.tag("psd") == "y" and name != domain:
            return above(domain)[above(domain).index(name) - 1]
    return min(found, key=len, default=None)


def _record(texts: tuple[bytes, ...]) -> Record | None:
    """Read the DMARC record among the TXT records of one name; None if there is none."""
    candidates = [text for text in texts if _is_dmarc(text)]
    if not candidates:
        return None
    if len(candidates) > 1:
        raise Refused(Reason.DMARC_UNREADABLE)
    return _readable(candidates[0])


def _is_dmarc(text: bytes) -> bool:
    version, _, _ = text.partition(b";")
    name, _, value = version.partition(b"=")
    return name.strip() == b"v" and value.strip() == b"DMARC1"


def _readable(text: bytes) -> Record:
    try:
        record = Record(
            {name.lower(): value.lower() for name, value in read_tags(text).items()}, text.decode()
        )
    except (TagListError, UnicodeDecodeError):
        raise Refused(Reason.DMARC_UNREADABLE) from None
    if record.tag("p", "none") not in POLICIES or record.tag("adkim", "r") not in MODES:
        raise Refused(Reason.DMARC_UNREADABLE)
    return record
