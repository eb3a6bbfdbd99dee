"""The chain of audit entries: each link's hash covers its entry and the hash of the link before.

One chain per organisation, one for what belongs to none, one of all their heads. Rule: docs/rules/identity.md, Audit.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from eb_contracts.audit import AuditEntry
from eb_contracts.ids import new_id

PLATFORM = UUID(int=0)
"""The chain of what belongs to no organisation: catalog, rates, platform roles."""
HEADS = UUID(int=1)
"""The chain that notes the heads of all others: who puts an old head back has this one against them."""
HEAD = "audit_chain_head"
START = bytes(32)
"""What the first link of a chain follows."""


class Link(NamedTuple):
    """An entry in its place in a chain."""

    seq: int
    service: str
    entry: AuditEntry
    hash: bytes


class Head(NamedTuple):
    """The last link of a chain; 0 before the first."""

    chain_id: UUID
    seq: int = 0
    hash: bytes = START


class Problem(NamedTuple):
    """The first link of a chain that isn't as it was written."""

    seq: int
    audit_id: UUID | None
    problem: str


def chain_of(entry: AuditEntry) -> UUID:
    """Give the chain an entry belongs to."""
    return entry.org_id or PLATFORM


def link_hash(previous: bytes, chain_id: UUID, seq: int, service: str, entry: AuditEntry) -> bytes:
    """Give SHA-256 over the previous hash and the entry as one JSON array; docs/rules/identity.md, Audit."""
    parts = [
        str(chain_id),
        seq,
        str(entry.audit_id),
        service,
        entry.entity,
        entry.entity_id,
        entry.action,
        entry.actor,
        entry.on_behalf_of,
        entry.session_user,
        entry.request_id,
        entry.trace_id,
        entry.at.isoformat(),
        entry.before,
        entry.after,
    ]
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(previous + text.encode()).digest()


def note_of(head: Head, service: str, at: datetime) -> AuditEntry:
    """Give the entry that notes a head in the chain of heads; `after` is written as jsonb writes it."""
    return AuditEntry(
        audit_id=new_id(),
        org_id=HEADS,
        entity=HEAD,
        entity_id=str(head.chain_id),
        action="update",
        actor=f"system:{service}",
        on_behalf_of=None,
        session_user=f"eb_{service}",
        request_id=None,
        trace_id=None,
        at=at,
        before=None,
        after=json.dumps({"seq": head.seq, "hash": head.hash.hex()}),
    )


def extend(head: Head, entries: Iterable[tuple[str, AuditEntry]]) -> tuple[Head, list[Link]]:
    """Put entries (with their services) at the end of a chain; the new head and the links."""
    links = []
    for service, entry in entries:
        seq = head.seq + 1
        link = Link(seq, service, entry, link_hash(head.hash, head.chain_id, seq, service, entry))
        links.append(link)
        head = Head(head.chain_id, seq, link.hash)
    return head, links


def fingerprint(key: bytes) -> bytes:
    """Name a key of seals without telling it."""
    return hashlib.sha256(b"fingerprint" + key).digest()[:4]


def seal(key: bytes, head: Head) -> bytes:
    """Give the seal of a head, the key's fingerprint first: who can write the database but lacks the key can't."""
    told = head.chain_id.bytes + head.seq.to_bytes(8, "big") + head.hash
    return fingerprint(key) + hmac.digest(key, told, "sha256")


def is_sealed(head: Head, sealed: bytes, keys: Iterable[bytes]) -> bool:
    """Tell whether one of these keys made the seal."""
    return any(hmac.compare_digest(seal(key, head), sealed) for key in keys)


@dataclass(slots=True)
class Check:
    """A chain being followed from its first link; `problem` is the first that is wrong, and stays.

    `known` are numbers and hashes of links that are held outside of the chain: it must have them.
    """

    at: Head
    known: frozenset[tuple[int, bytes]] = frozenset()
    problem: Problem | None = None

    def follow(self, links: Iterable[Link]) -> None:
        """Follow further links, in the order of their numbers."""
        for link in links:
            if self.problem is None:
                self._step(link)

    def _step(self, link: Link) -> None:
        seq = self.at.seq + 1
        if link.seq != seq:
            self.problem = Problem(seq, None, "missing")
            return
        expected = link_hash(self.at.hash, self.at.chain_id, seq, link.service, link.entry)
        if not hmac.compare_digest(expected, link.hash):
            self.problem = Problem(seq, link.entry.audit_id, "changed")
        elif any(number == seq and known != expected for number, known in self.known):
            self.problem = Problem(seq, link.entry.audit_id, "rewritten")
        self.at = Head(self.at.chain_id, seq, expected)

    def finish(self, head: Head, sealed: bytes | None, keys: Iterable[bytes]) -> None:
        """Compare the end with the sealed head (None: there is none), and with what is known to have come later.

        A chain without entries has a head that nobody sealed yet; what was noted of it shows if there were any.
        """
        if self.problem is not None:
            return
        is_new = head.seq == 0 and not sealed
        if sealed is not None and not is_new and not is_sealed(head, sealed, keys):
            self.problem = Problem(head.seq, None, "head_forged")
        elif head.seq > self.at.seq:
            self.problem = Problem(self.at.seq + 1, None, "missing")
        elif head.hash != self.at.hash:
            self.problem = Problem(head.seq, None, "changed")
        elif any(number > head.seq for number, _ in self.known):
            self.problem = Problem(head.seq + 1, None, "rolled_back")
