"""The table of domain-verify's routes, and what its doors share."""

from __future__ import annotations

from aiohttp import web

from eb_kit.web import Routes

from ..domain.errors import SignatureInvalid

routes = Routes("domain-verify")


def only_header(request: web.Request, name: str) -> str:
    """Give a header that a signed request has exactly once; SignatureInvalid."""
    values = request.headers.getall(name, ())
    if len(values) != 1:
        raise SignatureInvalid
    return values[0]
