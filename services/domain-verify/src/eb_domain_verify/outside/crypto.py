"""Verify one signature with dkimpy, which sees only what our own rules have already accepted.

The key goes to it re-encoded from the parsed key, the tags as we read them, and the signature's field with
`b=` already emptied: its own readers of these are lenient, or slow on blanks.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable

import dkim  # type: ignore[import-untyped]
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from ..domain.keys import MAX_EXPONENT, MAX_RSA_BITS, MIN_RSA_BITS, KeyRecord
from ..domain.mail import CRLF, Mail
from ..domain.reasons import Reason, Refused
from ..domain.signatures import Signature
from ..domain.taglist import without_value

ED25519_BYTES = 32
ED25519_BITS = 256

logging.getLogger("dkimpy").addHandler(logging.NullHandler())
logging.getLogger("dkimpy").propagate = False


def verify(mail: Mail, signature: Signature, key: KeyRecord) -> int:
    """Verify `signature` over `mail`; give the key's bits, or Refused with what is wrong with either."""
    record, bits = _rsa_record(key.public) if key.kind == "rsa" else _ed25519_record(key.public)
    verifier = dkim.DKIM(mail.content, minkey=MIN_RSA_BITS)
    field = mail.named(b"dkim-signature")[signature.index]
    header = [field.name, without_value(field.value, b"b") + CRLF]
    tags = {name.encode(): value.encode() for name, value in signature.tags.items()}
    covered = [name.encode() for name in signature.covered]
    try:
        is_good = verifier.verify_sig(tags, covered, header, _answering(record))
    except dkim.ValidationError:
        raise Refused(Reason.DKIM_BODY_HASH) from None
    except (dkim.DKIMException, ValueError):
        raise Refused(Reason.DKIM_SIGNATURE_WRONG) from None
    if not is_good:
        raise Refused(Reason.DKIM_SIGNATURE_WRONG)
    return bits


def _answering(record: bytes) -> Callable[..., bytes]:
    def answer(_name: bytes, timeout: float = 0) -> bytes:
        return record

    return answer


def _rsa_record(public: bytes) -> tuple[bytes, int]:
    """Take SubjectPublicKeyInfo or a bare PKCS#1 key; give a plain key record and the modulus' bits."""
    try:
        key = load_der_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        raise Refused(Reason.DKIM_KEY_MALFORMED) from None
    if not isinstance(key, RSAPublicKey):
        raise Refused(Reason.DKIM_KEY_MISMATCH)
    exponent = key.public_numbers().e
    if not (MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and 3 <= exponent <= MAX_EXPONENT and exponent % 2):
        raise Refused(Reason.DKIM_KEY_WEAK)
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der), key.key_size


def _ed25519_record(public: bytes) -> tuple[bytes, int]:
    if len(public) != ED25519_BYTES:
        raise Refused(Reason.DKIM_KEY_MALFORMED)
    return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(public), ED25519_BITS
