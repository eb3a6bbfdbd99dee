"""HTTP doors of the auth service."""

from . import audit, credentials, hierarchy, invitations, members, oidc, orgs, sign_in
from .routes import routes

__all__ = ["audit", "credentials", "hierarchy", "invitations", "members", "oidc", "orgs", "routes", "sign_in"]
