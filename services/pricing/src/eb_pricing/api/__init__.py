"""HTTP doors of pricing."""

from . import charges, one_offs, periods
from .routes import routes

__all__ = ["charges", "one_offs", "periods", "routes"]
