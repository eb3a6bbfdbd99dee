"""The HTTP doors of metering ingest."""

from . import events, ingest, letters, replays, voids
from .routes import routes

__all__ = ["events", "ingest", "letters", "replays", "routes", "voids"]
