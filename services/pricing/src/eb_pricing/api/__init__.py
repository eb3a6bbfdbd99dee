"""HTTP doors of pricing."""

from . import authorize, budgets, charges, one_offs, periods, prepaid
from .routes import routes

__all__ = ["authorize", "budgets", "charges", "one_offs", "periods", "prepaid", "routes"]
