"""The proof document: everything a verdict rested on, chained by hashes so that no part can be changed alone.

Rule: docs/rules/domain-verification.md, Proof.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

START = b"event-builder domain proof 1"


def seal(parts: Mapping[str, object]) -> dict[str, object]:
    """Give `parts` with `chain`, one link per part in their order, and `chain_sha256`, the last link.

    A link is SHA-256 over the link before, the part's name and its canonical JSON; all hex.
    """
    links = _links(parts)
    return {**parts, "chain": links, "chain_sha256": links[-1]["sha256"] if links else ""}


def holds(proof: Mapping[str, object]) -> bool:
    """Say whether a sealed proof is as it was sealed; the chain itself tells the parts' order."""
    chain = proof.get("chain")
    parts = {name: value for name, value in proof.items() if name not in ("chain", "chain_sha256")}
    if not isinstance(chain, list) or {link["part"] for link in chain} != set(parts):
        return False
    ordered = {link["part"]: parts[link["part"]] for link in chain}
    return proof == seal(ordered)


def canonical(value: object) -> bytes:
    """Write JSON in one way only: sorted keys, no blanks, UTF-8. Floats have no place in a proof."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _links(parts: Mapping[str, object]) -> list[dict[str, str]]:
    links: list[dict[str, str]] = []
    last = START
    for name, value in parts.items():
        last = hashlib.sha256(last + b"\x00" + name.encode() + b"\x00" + canonical(value)).digest()
        links.append({"part": name, "sha256": last.hex()})
    return links
