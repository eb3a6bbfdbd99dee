"""Bus doors of the auth service: it hears nobody, and sends its entities again to who asks."""

from __future__ import annotations

from eb_kit.bus import Handlers

from .store import credentials, orgs, sessions

handlers = Handlers()
handlers.owns("org", orgs.list_org_facts)
handlers.owns("project", orgs.list_project_facts)
handlers.owns("api_key", credentials.list_key_facts)
handlers.owns("signing_key", credentials.list_signing_key_facts)
handlers.owns("revocation", sessions.list_revocation_facts)
