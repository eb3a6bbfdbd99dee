"""A mail as bytes: bounds, line ends, the header block. Nothing is decoded and nothing is repaired.

Mail libraries mend what hostile senders break on purpose, each in its own way; here whatever two readers
could read differently is refused before any of them sees it. Rule: docs/rules/domain-verification.md, Bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .reasons import Reason, Refused

MAX_MAIL_BYTES = 1 << 20
MAX_HEADER_BYTES = 64 << 10
MAX_FIELDS = 200
MAX_SIGNATURES = 10

BLANKS = b" \t"
CRLF = b"\r\n"
_NAME = re.compile(rb"[\x21-\x39\x3b-\x7e]+")


@dataclass(frozen=True, slots=True)
class Field:
    """One header field: its name as written, its value with folds but without the last CRLF."""

    name: bytes
    value: bytes

    @property
    def unfolded(self) -> bytes:
        """Give the value without its folds' line ends and without blanks at both ends."""
        return self.value.replace(CRLF, b"").strip(BLANKS)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail whose bytes every reader reads alike; all line ends are CRLF."""

    content: bytes
    header_block: bytes
    fields: tuple[Field, ...]
    body: bytes

    def named(self, name: bytes) -> tuple[Field, ...]:
        """Give the fields of this name (lower case), in order."""
        return tuple(field for field in self.fields if field.name.lower() == name)

    def has_prefix(self, prefix: bytes) -> bool:
        """Say whether a field's name begins with `prefix` (lower case)."""
        return any(field.name.lower().startswith(prefix) for field in self.fields)


def read_mail(raw: bytes) -> Mail:
    """Read a mail's header block; Refused with `malformed` or `too_costly`.

    Takes CRLF or LF line ends, not both; no bare CR, no NUL; at most 1 MiB, 64 KiB of header, 200 fields and
    10 signatures. Linear in the mail's length.
    """
    if len(raw) > MAX_MAIL_BYTES:
        raise Refused(Reason.TOO_COSTLY)
    content = _with_crlf(raw)
    block, _, body = content.partition(CRLF + CRLF)
    if len(block) > MAX_HEADER_BYTES:
        raise Refused(Reason.TOO_COSTLY)
    fields = _fields(block.removesuffix(CRLF))
    mail = Mail(content, block, fields, body)
    if len(mail.named(b"dkim-signature")) > MAX_SIGNATURES:
        raise Refused(Reason.TOO_COSTLY)
    return mail


def _with_crlf(raw: bytes) -> bytes:
    if b"\x00" in raw:
        raise Refused(Reason.MALFORMED)
    returns, feeds = raw.count(b"\r"), raw.count(b"\n")
    if returns == 0:
        return raw.replace(b"\n", CRLF)
    if not returns == feeds == raw.count(CRLF):
        raise Refused(Reason.MALFORMED)
    return raw


def _fields(block: bytes) -> tuple[Field, ...]:
    lines: list[list[bytes]] = []
    for line in block.split(CRLF):
        if line[:1] not in (b" ", b"\t"):
            lines.append([line])
        elif not lines or not line.strip(BLANKS):
            raise Refused(Reason.MALFORMED)
        else:
            lines[-1].append(line)
        if len(lines) > MAX_FIELDS:
            raise Refused(Reason.TOO_COSTLY)
    return tuple(_field(CRLF.join(group)) for group in lines)


def _field(text: bytes) -> Field:
    name, colon, value = text.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        raise Refused(Reason.MALFORMED)
    return Field(name, value)
