"""The HTTP doors of domain-verify."""

from . import claims, inbound, submit
from .routes import routes

__all__ = ["claims", "inbound", "routes", "submit"]
