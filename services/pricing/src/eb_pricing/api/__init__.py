"""HTTP doors of pricing."""

from . import authorize, budgets, charges, credits, one_offs, periods
from .routes import routes

__all__ = ["authorize", "budgets", "charges", "credits", "one_offs", "periods", "routes"]
