"""Why a proof was refused or waits: stable codes, shown on the claim, never to the sender."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One stable code per rule. Rule: docs/rules/domain-verification.md, Reasons."""

    MALFORMED = "malformed"
    TOO_COSTLY = "too_costly"

    CLAIM_UNKNOWN = "claim_unknown"
    CLAIM_REVOKED = "claim_revoked"
    CONFLICT = "conflict"
    TOKEN_UNKNOWN = "token_unknown"  # noqa: S105 - a code, not a secret
    TOKEN_WRONG = "token_wrong"  # noqa: S105 - a code, not a secret
    TOKEN_USED = "token_used"  # noqa: S105 - a code, not a secret
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a code, not a secret

    ENVELOPE_TO_MISMATCH = "envelope_to_mismatch"
    FROM_NOT_SINGLE = "from_not_single"
    FROM_MALFORMED = "from_malformed"
    FROM_DOMAIN_MISMATCH = "from_domain_mismatch"
    TO_NOT_SINGLE = "to_not_single"
    TO_MALFORMED = "to_malformed"
    TO_MISMATCH = "to_mismatch"
    SUBJECT_NOT_SINGLE = "subject_not_single"
    SUBJECT_NOT_TOKEN = "subject_not_token"  # noqa: S105 - a code, not a secret
    RESENT = "resent"
    REPLY = "reply"

    AUTOMATIC = "automatic"
    LIST_MAIL = "list_mail"
    BULK = "bulk"
    NULL_SENDER = "null_sender"
    ROLE_SENDER = "role_sender"
    REPORT = "report"
    CONTENT_TYPE_NOT_SINGLE = "content_type_not_single"
    SENDER_OTHER_DOMAIN = "sender_other_domain"

    DKIM_MISSING = "dkim_missing"
    DKIM_MALFORMED = "dkim_malformed"
    DKIM_ALGORITHM = "dkim_algorithm"
    DKIM_FIELDS_UNCOVERED = "dkim_fields_uncovered"
    DKIM_LENGTH_TAG = "dkim_length_tag"
    DKIM_EXPIRED = "dkim_expired"
    DKIM_FUTURE = "dkim_future"
    DKIM_OLDER_THAN_TOKEN = "dkim_older_than_token"  # noqa: S105 - a code, not a secret
    DKIM_DOMAIN_UNALIGNED = "dkim_domain_unaligned"
    DKIM_DOMAIN_PUBLIC_SUFFIX = "dkim_domain_public_suffix"
    DKIM_KEY_MISSING = "dkim_key_missing"
    DKIM_KEY_AMBIGUOUS = "dkim_key_ambiguous"
    DKIM_KEY_MALFORMED = "dkim_key_malformed"
    DKIM_KEY_REVOKED = "dkim_key_revoked"
    DKIM_KEY_MISMATCH = "dkim_key_mismatch"
    DKIM_KEY_SERVICE = "dkim_key_service"
    DKIM_KEY_WEAK = "dkim_key_weak"
    DKIM_KEY_TESTING = "dkim_key_testing"
    DKIM_BODY_HASH = "dkim_body_hash"
    DKIM_SIGNATURE_WRONG = "dkim_signature_wrong"
    DKIM_NOT_ASSERTED = "dkim_not_asserted"

    DMARC_UNREADABLE = "dmarc_unreadable"
    DMARC_UNALIGNED = "dmarc_unaligned"

    DNS_UNAVAILABLE = "dns_unavailable"


AL1 = frozenset({Reason.DKIM_KEY_WEAK, Reason.DKIM_KEY_TESTING})
"""A signature refused for one of these still shows some control of the domain: level AL1."""


class Refused(Exception):
    """A rule refuses the mail; `reasons` are the codes."""

    def __init__(self, *reasons: Reason) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = reasons
