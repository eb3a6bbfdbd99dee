"""The one list of auth's routes; the doors enter themselves."""

from __future__ import annotations

from eb_kit.web import Routes

routes = Routes("auth")
