"""Pricing, wired."""

from __future__ import annotations

from eb_kit.service import Service

from .api import routes
from .consumers import handlers
from .jobs import jobs
from .settings import Settings

SERVICE = Service(
    name="pricing", schema="pricing", settings=Settings, routes=routes, handlers=handlers, jobs=jobs
)
