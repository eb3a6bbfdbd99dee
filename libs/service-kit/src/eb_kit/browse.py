"""The API's document for machines (`/openapi.json`) and for people (`/docs`); a setting turns both off.

The page is self-contained: nothing is loaded from elsewhere, and its policy allows nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from aiohttp import web

from .problems import SAFE_HEADERS
from .routing import Routes

routes = Routes("gateway")


@cache
def _document() -> bytes:
    return files("eb_kit").joinpath("openapi.json").read_bytes()


@cache
def _page() -> tuple[bytes, str]:
    """Give the page and a policy that allows its own script and style only."""
    script = files("eb_kit").joinpath("docs.js").read_text()
    style = files("eb_kit").joinpath("docs.css").read_text()
    page = files("eb_kit").joinpath("docs.html").read_text()
    policy = (
        f"default-src 'none'; connect-src 'self'; script-src {_source(script)}; style-src {_source(style)};"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page.replace("/*style*/", style).replace("/*script*/", script).encode(), policy


def _source(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


@routes.get("/openapi.json", answer=dict[str, object])
async def get_document(_: web.Request) -> web.Response:
    """Give this document: OpenAPI 3.1 of the whole platform."""
    return web.Response(body=_document(), headers={**SAFE_HEADERS, "Content-Type": "application/json"})


@routes.get("/docs", answer=str, answer_type="text/html")
async def get_page(_: web.Request) -> web.Response:
    """Give a page to browse this document and its problem codes."""
    page, policy = _page()
    headers = {**SAFE_HEADERS, "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
    return web.Response(body=page, headers=headers)
