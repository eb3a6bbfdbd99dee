"""The table that the doors enter themselves into."""

from eb_kit.web import Routes

routes = Routes("metering-ingest")
