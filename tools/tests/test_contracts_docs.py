"""The generated contract of the bus is what is committed, and is read by validators."""

from __future__ import annotations

import json
from pathlib import Path

from jsonschema import Draft202012Validator

from eb_contracts.base import ALL
from eb_tools import contracts_docs

COMMITTED = Path(__file__).parents[2] / "docs" / "api"


def test_committed_documents_are_what_the_code_says() -> None:
    assert contracts_docs.drift(COMMITTED) == []


def test_a_changed_missing_or_left_over_file_is_drift(tmp_path: Path) -> None:
    contracts_docs.write(tmp_path)
    assert contracts_docs.drift(tmp_path) == []
    (tmp_path / "asyncapi.json").write_text("{}")
    (tmp_path / "schemas" / "ledger.entries.posted.v1.json").unlink()
    (tmp_path / "schemas" / "nobody.knows.v1.json").write_text("{}")
    assert contracts_docs.drift(tmp_path) == [
        "asyncapi.json",
        "schemas/ledger.entries.posted.v1.json",
        "schemas/nobody.knows.v1.json",
    ]
    contracts_docs.write(tmp_path)
    assert contracts_docs.drift(tmp_path) == []


def test_every_schema_is_valid_and_every_reference_of_the_document_leads_somewhere() -> None:
    for message in ALL.values():
        Draft202012Validator.check_schema(contracts_docs.schema_of(message))
    document = contracts_docs.asyncapi()
    text = json.dumps(document)
    for pointer in {part.split('"')[0] for part in text.split('"$ref": "#/')[1:]}:
        here = document
        for step in pointer.split("/"):
            here = here[step]
