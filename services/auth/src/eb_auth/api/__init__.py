"""HTTP doors of the auth service."""

from . import assist, audit, credentials, groups, hierarchy, invitations, links, members, oidc, orgs, sign_in
from .routes import routes

__all__ = [
    "assist",
    "audit",
    "credentials",
    "groups",
    "hierarchy",
    "invitations",
    "links",
    "members",
    "oidc",
    "orgs",
    "routes",
    "sign_in",
]
