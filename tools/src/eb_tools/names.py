"""The seven services by name, and what in the database is called after them."""

from __future__ import annotations

NAMES = ("auth", "domain-verify", "catalog", "metering-ingest", "pricing", "ledger", "estimator")


def schema_of(service: str) -> str:
    """Give the schema (and the ending of role and module) of a service."""
    return service.replace("-", "_")


def role_of(service: str) -> str:
    """Give the database role of a service."""
    return f"eb_{schema_of(service)}"
