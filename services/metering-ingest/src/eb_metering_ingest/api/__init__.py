"""The HTTP doors of metering ingest."""

from . import alerts, events, ingest, letters, provider_logs, reconciling, replays, voids
from .routes import routes

__all__ = [
    "alerts", "events", "ingest", "letters", "provider_logs", "reconciling", "replays", "routes", "voids",
]  # fmt: skip
