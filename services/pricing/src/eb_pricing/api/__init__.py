"""HTTP doors of pricing."""

from .charges import routes

__all__ = ["routes"]
