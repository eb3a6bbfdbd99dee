"""The HTTP doors of metering ingest."""

from . import events, ingest, letters
from .routes import routes

__all__ = ["events", "ingest", "letters", "routes"]
