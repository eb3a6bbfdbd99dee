"""The HTTP doors of the ledger."""

from . import accounts, entries, partners
from .routes import routes

__all__ = ["accounts", "entries", "partners", "routes"]
