"""Email addresses in the one form in which they are kept and compared."""

from __future__ import annotations

import re

import idna

LOCAL_PART = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
LONGEST_LOCAL_PART = 64
LONGEST_ADDRESS = 254


def canonical_address(text: str) -> str:
    """Give the address in lower case with an ASCII domain; ValueError when it is none.

    Only ASCII local parts: letters that a database's collation would fold onto ASCII ones must not name
    somebody else's account.
    """
    local, at, domain = text.strip().rpartition("@")
    local = local.lower() if local.isascii() else ""
    if not at or len(local) > LONGEST_LOCAL_PART or not LOCAL_PART.fullmatch(local):
        raise ValueError("not an email address")
    address = f"{local}@{_ascii_domain(domain)}"
    if len(address) > LONGEST_ADDRESS:
        raise ValueError("an email address has at most 254 characters")
    return address


def _ascii_domain(domain: str) -> str:
    try:
        name = idna.encode(domain, uts46=True, std3_rules=True).decode().lower()
    except idna.IDNAError:
        raise ValueError("not a domain name") from None
    if "." not in name or name.endswith("."):
        raise ValueError("not a domain name")
    return name
