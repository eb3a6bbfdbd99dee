"""HTTP doors of the auth service."""

from . import credentials, hierarchy, members, orgs, sign_in
from .routes import routes

__all__ = ["credentials", "hierarchy", "members", "orgs", "routes", "sign_in"]
