"""The table that the clock doors enter themselves into."""

from eb_kit.jobs import Jobs

jobs = Jobs()
"""The clock doors of metering ingest."""
