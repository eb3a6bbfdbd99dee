"""Doors of an organisation's API keys."""

from __future__ import annotations

from aiohttp import web

from eb_contracts.errors import Fault, NotFound
from eb_kit.access import reach
from eb_kit.paging import page_of, read_cursor
from eb_kit.problems import BodyInvalid
from eb_kit.tx import begin
from eb_kit.web import Page, created, no_content, path_uuid, read_body, read_query

from ..flows import api_keys
from ..store import credentials
from .routes import routes
from .shapes import ApiKeyView, CreateApiKey, NewApiKeyView

PAST = Fault("/expires_at", "not_in_the_future", "Must be in the future.")


@routes.post(
    "/orgs/{org_id}/api-keys",
    body=CreateApiKey,
    answer=NewApiKeyView,
    status=201,
    stores_secret=True,
    errors=(NotFound,),
    step_up=True,
)
async def create_key(request: web.Request) -> web.Response:
    """Create an API key; 201 with the whole key, which is shown here only."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    body = await read_body(request, CreateApiKey)
    async with begin(request) as tx:
        if body.expires_at is not None and body.expires_at <= tx.now:
            raise BodyInvalid(faults=(PAST,))
        made = api_keys.NewKey(body.name, body.scopes, body.expires_at)
        key, text = await api_keys.create_key(tx, "org", org_id, made)
        return tx.answer(created(NewApiKeyView.with_secret(key, text)))


@routes.get("/orgs/{org_id}/api-keys", query=Page, answer=list[ApiKeyView], errors=(NotFound,))
async def list_keys(request: web.Request) -> web.Response:
    """List an organisation's API keys, revoked ones too, newest first."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    query = read_query(request, Page)
    last = read_cursor(request, query)
    async with begin(request) as tx:
        found = await credentials.list_keys(tx, org_id, last["key_id"] if last else None, query.limit + 1)
    views = [ApiKeyView.of(key) for key in found]
    return page_of(request, query, views, lambda view: {"key_id": view.key_id})


@routes.delete("/orgs/{org_id}/api-keys/{key_id}", errors=(NotFound,))
async def revoke_key(request: web.Request) -> web.Response:
    """Revoke an API key everywhere; 204, again too."""
    org_id = path_uuid(request, "org_id")
    await reach(request, org_id)
    async with begin(request) as tx:
        key = await credentials.lock_key(tx, org_id, path_uuid(request, "key_id"))
        await api_keys.revoke_key(tx, key)
        return tx.answer(no_content())
