"""Wires the catalog's doors."""

from eb_kit.service import Service

from .api import routes
from .consumers import handlers
from .jobs import jobs
from .settings import Settings

SERVICE = Service(
    name="catalog", schema="catalog", settings=Settings, routes=routes, handlers=handlers, jobs=jobs
)
