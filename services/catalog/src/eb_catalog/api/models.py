"""Business models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiohttp import web

from eb_contracts.ids import new_id
from eb_kit.inputs import Page
from eb_kit.tx import Tx, begin
from eb_kit.web import created, ok, page_of, path_uuid, read_body, read_cursor, read_query

from ..domain.errors import ModelCodeTaken, Unacceptable
from ..domain.products import Model
from ..store import plans as store
from .routes import routes
from .shapes import CreateModel, ModelView, PatchModel


@routes.post(
    "/catalog/business-models", body=CreateModel, answer=ModelView, status=201, errors=(ModelCodeTaken,)
)
async def create_model(request: web.Request) -> web.Response:
    """Create a business model; 201 with it. 409 `model_code_taken`."""
    body = await read_body(request, CreateModel)
    async with begin(request) as tx:
        model = Model(
            model_id=new_id(),
            status="active",
            version=1,
            default_plan_id=None,
            created_at=tx.now,
            **body.model_dump(),
        )
        await store.insert_model(tx, model)
        return tx.answer(created(ModelView.of(model)))


@routes.get("/catalog/business-models", query=Page, answer=list[ModelView])
async def list_models(request: web.Request) -> web.Response:
    """List business models, the newest first."""
    query = read_query(request, Page)
    after = read_cursor(request, query) or {}
    async with begin(request) as tx:
        found = await store.list_models(tx, after.get("model_id"), query.limit + 1)
    return page_of(
        request, query, [ModelView.of(model) for model in found], lambda v: {"model_id": v.model_id}
    )


@routes.get("/catalog/business-models/{model_id}", answer=ModelView)
async def get_model(request: web.Request) -> web.Response:
    """Give a business model."""
    async with begin(request) as tx:
        return ok(ModelView.of(await store.get_model(tx, path_uuid(request, "model_id"))))


@routes.patch("/catalog/business-models/{model_id}", body=PatchModel, answer=ModelView)
async def patch_model(request: web.Request) -> web.Response:
    """Change a business model's name, status or default plan; its version rises."""
    model_id = path_uuid(request, "model_id")
    body = await read_body(request, PatchModel)
    async with begin(request) as tx:
        model = await store.lock_model(tx, model_id)
        changed = replace(model, **await _changes(tx, model, body))
        if changed != model:
            changed = replace(changed, version=model.version + 1)
            await store.update_model(tx, changed)
    return ok(ModelView.of(changed))


async def _changes(tx: Tx, model: Model, body: PatchModel) -> dict[str, Any]:
    sent = {name: getattr(body, name) for name in body.model_fields_set}
    for name in ("name", "status"):
        if name in sent and sent[name] is None:
            raise Unacceptable.at(f"/{name}", "required", "Must not be null.")
    if sent.get("default_plan_id") is not None:
        plan = await store.find_plan(tx, sent["default_plan_id"])
        if plan is None or plan.model_id != model.model_id:
            raise Unacceptable.at("/default_plan_id", "unknown_plan", "The model has no such plan.")
    return sent
