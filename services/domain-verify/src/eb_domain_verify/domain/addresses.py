"""One mailbox, as strictly as a proof needs it: `local@domain` or `name <local@domain>`, and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .names import is_host_name

_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ADDRESS = rb"(?P<local>" + _ATOM + rb"(?:\." + _ATOM + rb")*)@(?P<domain>[A-Za-z0-9.-]+)"
_BARE = re.compile(_ADDRESS)
_ANGLED = re.compile(rb"<" + _ADDRESS + rb">")
_QUOTED = re.compile(rb'"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\x20-\x7e\t])*"')
_WORDS = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f\"\\()<>\[\]:;@,]*")
MAX_LOCAL = 64
MAX_VALUE = 2000


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address: the local part as written, the domain in canonical form."""

    local: str
    domain: str

    @property
    def address(self) -> str:
        """Write it as `local@domain`."""
        return f"{self.local}@{self.domain}"


def read_mailbox(value: bytes) -> Mailbox | None:
    """Read an unfolded field value; None unless it is exactly one plain mailbox.

    No group, list, route, comment, quoted local part, address literal or trailing dot; the domain is ASCII of
    two or more labels. Rule: docs/rules/domain-verification.md, The three fields.
    """
    if len(value) > MAX_VALUE:
        return None
    return _mailbox(_BARE.fullmatch(value)) or _named_mailbox(value)


def read_address(value: bytes) -> Mailbox | None:
    """Read an envelope address, without angle brackets; None if it is no plain address."""
    return _mailbox(_BARE.fullmatch(value))


def _named_mailbox(value: bytes) -> Mailbox | None:
    """Read `display-name <address>`; the name is quoted strings and words without specials."""
    start = value.rfind(b"<")
    if start < 0 or not _is_display_name(value[:start]):
        return None
    return _mailbox(_ANGLED.fullmatch(value[start:]))


def _is_display_name(name: bytes) -> bool:
    return _WORDS.fullmatch(_QUOTED.sub(b" ", name)) is not None


def _mailbox(match: re.Match[bytes] | None) -> Mailbox | None:
    if match is None or len(match["local"]) > MAX_LOCAL:
        return None
    domain = match["domain"].decode("ascii").lower()
    return Mailbox(match["local"].decode("ascii"), domain) if is_host_name(domain) else None
