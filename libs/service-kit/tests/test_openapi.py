"""The document follows from the routes, is valid OpenAPI 3.1, and is served to browsers that load nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from aiohttp import web
from openapi_spec_validator import validate

from eb_contracts.errors import Kind, Refusal
from eb_kit import browse
from eb_kit.inputs import Input, Page, QuantityIn, View
from eb_kit.openapi import document
from eb_kit.routing import Route, Routes

routes = Routes("test")


class Taken(Refusal):
    code = "taken"
    kind = Kind.CONFLICT


class Thing(Input):
    name: str
    quantity: QuantityIn


class ThingView(View):
    name: str


class Things(Page):
    kind: str


@routes.post("/things", body=Thing, answer=ThingView, status=201, errors=(Taken,), idempotency="required")
async def create_thing(request: web.Request) -> web.Response:
    """Create a thing.

    It is a thing then.
    """
    raise AssertionError("only its description is looked at")


@routes.get("/things", query=Things, answer=list[ThingView])
async def list_things(request: web.Request) -> web.Response:
    """List things."""
    raise AssertionError("only its description is looked at")


@routes.post("/things/{thing_id}:end", raw_body=True, encodings=("gzip",), status=204)
async def end_thing(request: web.Request) -> web.Response:
    """End one."""
    raise AssertionError("only its description is looked at")


def with_names(route: Route, *names: str) -> Route:
    copied = replace(route)
    copied.__dict__["names"] = frozenset(names)
    return copied


SHOWN = [with_names(route, "Admin", "key:things:read") for route in routes]


def test_the_document_is_valid_and_names_shapes_statuses_codes_and_callers() -> None:
    made = document("Test", SHOWN)
    validate(made)
    create = made["paths"]["/things"]["post"]

    assert create["summary"] == "Create a thing."
    assert create["x-allowed"] == ["Admin", "key:things:read"]
    assert create["security"] == [{"bearer": []}]
    assert " ".join(sorted(create["responses"])) == "201 400 401 403 404 408 409 413 415 422 429 500 503"
    assert create["responses"]["409"]["x-codes"] == ["idempotency_key_in_progress", "taken"]
    assert "idempotency_key_required" in create["responses"]["400"]["x-codes"]
    assert create["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Thing"
    }
    assert [parameter["required"] for parameter in create["parameters"]] == [True]


def test_a_list_of_views_is_a_page_with_its_filters_as_parameters() -> None:
    listing = document("Test", SHOWN)["paths"]["/things"]["get"]
    schema = listing["responses"]["200"]["content"]["application/json"]["schema"]

    assert set(schema["properties"]) == {"items", "next_cursor"}
    assert {p["name"]: p["required"] for p in listing["parameters"]} == {
        "limit": False,
        "cursor": False,
        "kind": True,
    }
    assert listing["parameters"][0]["schema"]["maximum"] == 200


def test_an_open_route_asks_for_no_token() -> None:
    made = document("Test", [with_names(routes.routes[1], "public")])

    assert made["paths"]["/things"]["get"]["security"] == []
    assert "401" not in made["paths"]["/things"]["get"]["responses"]


def test_two_operations_of_one_name_are_refused() -> None:
    twice = replace(routes.routes[0], path="/other")

    with pytest.raises(ValueError, match="test_create_thing"):
        document("Test", [*SHOWN, with_names(twice, "Admin")])


def test_the_page_loads_nothing_from_elsewhere_and_its_policy_allows_its_own_script() -> None:
    page, policy = browse._page()
    text = page.decode()

    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "default-src 'none'" in policy
    assert policy.count("'sha256-") == 2
    assert "/*script*/" not in text
