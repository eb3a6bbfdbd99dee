"""What the HTTP doors refuse. Rule: docs/rules/domain-verification.md, Claims and Doors."""

from __future__ import annotations

from eb_contracts.errors import Fault, Kind, Refusal


class DomainRefused(Refusal):
    """The named domain can't be claimed; every subclass has a code of its own and points at `/domain`."""

    kind = Kind.INVALID

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, faults=(Fault("/domain", self.code, detail or self.title),))


class DomainInvalid(DomainRefused):
    """Not a host name by UTS 46 and IDNA 2008."""

    code = "domain_invalid"
    title = "This is not a valid domain name."


class DomainUnderscore(DomainRefused):
    """An underscore: a service label, not a mail domain."""

    code = "domain_underscore"
    title = "A domain with an underscore cannot be claimed."


class DomainSingleLabel(DomainRefused):
    """One label, as `localhost`."""

    code = "domain_single_label"
    title = "A domain of a single label cannot be claimed."


class DomainIsAddress(DomainRefused):
    """A network or mail address."""

    code = "domain_is_address"
    title = "This is an address, not a domain."


class DomainIsPublicSuffix(DomainRefused):
    """A suffix under which strangers register, of either section of the list."""

    code = "domain_is_public_suffix"
    title = "A public suffix cannot be claimed."


class DomainIsFreeMail(DomainRefused):
    """A provider who gives anybody an address."""

    code = "domain_is_free_mail"
    title = "A free-mail provider's domain cannot be claimed."


class DomainIsPlatform(DomainRefused):
    """The platform's own."""

    code = "domain_is_platform"
    title = "The platform's own domain cannot be claimed."


class WildcardNotOrganizational(Refusal):
    """Only the organizational domain may cover its sub-domains."""

    code = "wildcard_not_organizational"
    kind = Kind.INVALID
    title = "Only an organizational domain may ask for a wildcard."


class ClaimExists(Refusal):
    """The organisation itself has a live claim of this domain; `claim_id` names it."""

    code = "claim_exists"
    kind = Kind.CONFLICT
    title = "The organisation already claims this domain."


class ClaimNotPending(Refusal):
    """A verified or revoked claim gets no new token."""

    code = "claim_not_pending"
    kind = Kind.CONFLICT
    title = "Only a pending claim can get a new token."


class SignatureInvalid(Refusal):
    """The request's signature is missing or wrong."""

    code = "signature_invalid"
    kind = Kind.UNAUTHENTICATED
    title = "The request's signature is missing or wrong."


class RequestStale(Refusal):
    """Signed too long ago, or in the future."""

    code = "request_stale"
    kind = Kind.CONFLICT
    title = "The signed time is too far from now."


class EnvelopeInvalid(Refusal):
    """A signed field holds what no mail server sends."""

    code = "envelope_invalid"
    kind = Kind.INVALID
    title = "An envelope field is not valid."
