"""Every refusal of the auth service."""

from __future__ import annotations

from eb_contracts.errors import Kind, Refusal


class CodeInvalid(Refusal):
    """Wrong, expired, used or guessed too often: one answer for all."""

    code = "code_invalid"
    kind = Kind.UNAUTHENTICATED
    title = "This code is not valid for this address."


class RefreshTokenInvalid(Refusal):
    """Unknown, expired, revoked or used before: one answer for all."""

    code = "refresh_token_invalid"
    kind = Kind.UNAUTHENTICATED
    title = "This refresh token is not valid."


class TooManyAttempts(Refusal):
    """More attempts in this minute than one address, user or network address may make."""

    code = "rate_limited"
    kind = Kind.LIMITED
    title = "Too many attempts; try again later."


class OrgSlugTaken(Refusal):
    """Another organisation has this slug."""

    code = "org_slug_taken"
    kind = Kind.CONFLICT
    title = "Another organisation has this slug."


class MaxDepth(Refusal):
    """The hierarchy would become deeper than ten edges."""

    code = "max_depth"
    kind = Kind.CONFLICT
    title = "A hierarchy is at most ten levels deep."


class LastAdmin(Refusal):
    """An organisation keeps at least one Admin."""

    code = "last_admin"
    kind = Kind.CONFLICT
    title = "The last Admin of an organisation can't be removed or demoted."


class AlreadyMember(Refusal):
    """The invited address belongs to a member."""

    code = "already_member"
    kind = Kind.CONFLICT
    title = "This address belongs to a member already."


class InvitationOpen(Refusal):
    """The invited address has an open invitation to this organisation."""

    code = "invitation_open"
    kind = Kind.CONFLICT
    title = "This address has an open invitation already."
