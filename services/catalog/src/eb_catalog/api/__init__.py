"""The HTTP doors of the catalog."""

from . import models, orgs, plans, products
from .routes import routes

__all__ = ["models", "orgs", "plans", "products", "routes"]
