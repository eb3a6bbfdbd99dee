"""Every SQL statement of metering ingest."""
