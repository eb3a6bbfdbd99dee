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


class SubtreeTooLarge(Refusal):
    """So many organisations times so many levels don't change their place in one step."""

    code = "subtree_too_large"
    kind = Kind.CONFLICT
    title = (
        "This subtree is too large to change its place in one step; detach it first, or move its branches."
    )


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


class OidcRefused(Refusal):
    """The provider refused, or what came back isn't the answer to what this browser started: one answer for all."""

    code = "oidc_refused"
    kind = Kind.UNAUTHENTICATED
    title = "The sign-in with this provider did not succeed."


class OidcUnavailable(Refusal):
    """The provider doesn't answer, or not as one should."""

    code = "oidc_unavailable"
    kind = Kind.UNAVAILABLE
    title = "This sign-in provider can't be reached at the moment."


class EmailNotVerified(Refusal):
    """The provider doesn't vouch for an address, or not for one at that domain."""

    code = "email_not_verified"
    kind = Kind.FORBIDDEN
    title = "The provider names no verified address that it may vouch for."


class IdentityConflict(Refusal):
    """The address belongs to a user who signs in as somebody else at this provider."""

    code = "identity_conflict"
    kind = Kind.CONFLICT
    title = "This address belongs to another identity of this provider."


class SelfParent(Refusal):
    """An organisation isn't its own parent."""

    code = "self_parent"
    kind = Kind.CONFLICT
    title = "An organisation can't be its own parent."


class Cycle(Refusal):
    """The new parent stands below the organisation."""

    code = "cycle"
    kind = Kind.CONFLICT
    title = "The new parent is a descendant of the organisation."


class AlreadyHasParent(Refusal):
    """Only a root is linked; what has a parent is moved."""

    code = "already_has_parent"
    kind = Kind.CONFLICT
    title = "The organisation has a parent already."


class AlreadyRoot(Refusal):
    """There is no parent to leave."""

    code = "already_root"
    kind = Kind.CONFLICT
    title = "The organisation has no parent."


class LinkNotPending(Refusal):
    """The request to link was answered otherwise before, or is too old."""

    code = "org_link_not_pending"
    kind = Kind.CONFLICT
    title = "This request to link organisations is no longer pending."


class AssistOff(Refusal):
    """The organisation wants no assist sessions."""

    code = "assist_off"
    kind = Kind.FORBIDDEN
    title = "This organisation allows no assist sessions."


class AssistNotPending(Refusal):
    """The request to assist was answered otherwise before, ended, or is too old."""

    code = "assist_not_pending"
    kind = Kind.CONFLICT
    title = "This request to assist is no longer pending."
