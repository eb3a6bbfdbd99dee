"""Bus doors of the auth service: it hears nobody, and sends its entities again to who asks."""

from __future__ import annotations

from eb_kit.bus import Handlers

from .store.facts import LISTERS

handlers = Handlers()
for entity, lister in LISTERS.items():
    handlers.owns(entity, lister)
