"""Signed requests: HMAC-SHA256 over the lines that both sides agree on, and how old a request may be.

Rule: docs/rules/domain-verification.md, Doors.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence

from .errors import RequestStale, SignatureInvalid

VERSION = "v1"
MAX_AGE_S = 300
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_SIGNATURE = re.compile(r"v1=[0-9a-f]{64}", re.ASCII)


def signed_text(lines: Sequence[str], body: bytes) -> bytes:
    """Give the bytes that are signed: the version, the lines and the body's SHA-256 in hex, joined by LF.

    Bytes of a header that are no UTF-8 stay the bytes they were.
    """
    text = "\n".join((VERSION, *lines, hashlib.sha256(body).hexdigest()))
    return text.encode("utf-8", "surrogateescape")


def check_signature(text: bytes, signature: str, secrets: Iterable[str]) -> None:
    """Raise SignatureInvalid unless `signature` (`v1=<hex>`) was made over `text` with one of the secrets."""
    if not _SIGNATURE.fullmatch(signature):
        raise SignatureInvalid
    given = bytes.fromhex(signature.removeprefix("v1="))
    fits = [hmac.compare_digest(hmac.digest(secret.encode(), text, "sha256"), given) for secret in secrets]
    if not any(fits):
        raise SignatureInvalid


def check_age(timestamp: str, now_s: float) -> None:
    """Raise RequestStale for a time over 300 s away, SignatureInvalid for what is no Unix time."""
    if not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureInvalid
    if abs(now_s - int(timestamp)) > MAX_AGE_S:
        raise RequestStale
