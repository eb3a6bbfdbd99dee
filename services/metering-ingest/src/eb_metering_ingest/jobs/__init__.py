"""Clock doors: what waited and goes on, months that come and leave, reconciliation, usage alerts."""

from . import alerts, months, reconciling, recording
from .doors import jobs

__all__ = ["alerts", "jobs", "months", "reconciling", "recording"]
