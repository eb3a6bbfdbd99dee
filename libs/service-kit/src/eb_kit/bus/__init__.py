"""The message bus: the only place that knows aio-pika.

A service publishes with `tx.publish`, and registers what it handles, keeps and owns with `Handlers`.
Rule: docs/rules/bus.md.
"""

from .envelope import Envelope, written
from .handlers import Family, Handlers, Poison
from .link import BusUnavailable
from .runtime import Bus

__all__ = ["Bus", "BusUnavailable", "Envelope", "Family", "Handlers", "Poison", "written"]
