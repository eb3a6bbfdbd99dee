"""Bus doors: domain-verify hears of organisations, keys and revocations only, which the kit keeps."""

from __future__ import annotations

from eb_kit.bus import Handlers

from .store.claims import list_claim_facts

handlers = Handlers()
handlers.owns("domain_claim", list_claim_facts)
