"""Secrets stay out of what is printed, logged, measured and left behind. Each finder is shown something wrong, too."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError

from eb_auth.api.shapes import NewApiKeyView
from eb_auth.domain.oidc import Attempt
from eb_auth.settings import OidcProvider
from eb_kit.inputs import Input
from eb_kit.settings import ServiceSettings, load
from eb_tools.names import NAMES, schema_of
from eb_tools.paths import repository

ROOT = repository()
SECRET = "a-secret-that-nobody-reads"
LIKE_A_SECRET = re.compile(r"(^|_)(secret|token|password|verifier|nonce|private_key)s?$|^code$")
PROVIDER = {"issuer": "https://a.example", "client_id": "x", "client_secret": SECRET}
NO_SECRETS = {
    "eb_rating/prices.py code": "of a fault",
    "eb_catalog/domain/products.py code": "a tax code",
    "eb_contracts/errors.py code": "of a refusal",
    "eb_kit/idempotency.py stores_secret": "whether",
    "eb_kit/routing.py stores_secret": "whether",
}
LABELS = {
    "service", "outcome", "family", "result", "queue", "tier", "error_class", "connection", "reader", "job", "route",
    "status", "code", "invariant", "kind", "reason", "from", "decision", "source", "provider",
}  # fmt: skip
"""Names of labels whose values come from the code (`provider`: short words that trusted systems choose); an id or an
address would make a series each."""


def production(service: str) -> dict[str, str]:
    """Give settings of a service with a secret in each that holds one."""
    return {
        "EB_ENV": "production",
        "EB_HTTP_PORT": "1",
        "EB_ADMIN_PORT": "2",
        "EB_PUBLIC_URL": "https://api.example.org",
        "DATABASE_URL": f"postgresql://{service}:{SECRET}@db/eb?sslmode=verify-full",
        "AMQP_URL": f"amqps://{service}:{SECRET}@mq/",
        "EB_CURSOR_SECRET": SECRET,
        "EB_AUTH_SECRET": SECRET,
        "EB_SMTP_HOST": "mail.example.org",
        "EB_SMTP_PASSWORD": SECRET,
        "EB_OIDC_PROVIDERS": json.dumps({"a": PROVIDER}),
        "EB_INBOUND_RAW_SECRETS": SECRET,
        "EB_EMAIL_SUBMIT_SECRETS": f"a={SECRET}",
    }


def settings_of(service: str) -> type[ServiceSettings]:
    return importlib.import_module(f"eb_{schema_of(service)}.settings").Settings  # type: ignore[no-any-return]


@pytest.mark.parametrize("service", NAMES)
def test_settings_show_no_values(service: str) -> None:
    settings = load(settings_of(service), production(service))

    assert SECRET in str(settings.model_dump())
    assert SECRET not in f"{settings} {settings!r} {vars(settings) and [settings]}"


@pytest.mark.parametrize("service", NAMES)
def test_a_refused_setting_is_told_without_its_value(
    service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"EB_HTTP_PORT": SECRET, "EB_LOG_LEVEL": SECRET, "EB_AUTH_SECRET": "short-secret"}
    with pytest.raises(SystemExit):
        load(settings_of(service), production(service) | wrong)
    with pytest.raises(ValidationError) as refused:
        settings_of(service).model_validate({"EB_ENV": SECRET, "DATABASE_URL": {"a": SECRET}})

    told = capsys.readouterr().err
    assert "EB_HTTP_PORT" in told
    assert not re.search(f"{SECRET}|short-secret", told + str(refused.value))


class Body(Input):
    """What somebody sends."""

    email: str
    age: int


def test_what_was_sent_and_what_is_shown_once_are_in_no_text_of_theirs() -> None:
    body = Body(email="ada@example.org", age=3)
    with pytest.raises(ValidationError) as refused:
        Body.model_validate({"email": "ada@example.org", "age": "ada@example.org"})
    key = NewApiKeyView.model_construct(api_key=SECRET)
    provider = OidcProvider.model_validate(PROVIDER)
    attempt = Attempt(*(SECRET if name != "provider" else "a" for name in Attempt._fields))

    assert "ada@" not in f"{body} {body!r} {refused.value}"
    assert SECRET not in f"{key} {key!r} {provider!r} {attempt!r} {[attempt]}"


def unhidden(source: str) -> Iterator[str]:
    """Name the members of dataclasses and named tuples that are called like secrets and stand in their repr."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        kinds = {ast.unparse(part).split("(")[0] for part in [*node.decorator_list, *node.bases]}
        has_own = any(isinstance(part, ast.FunctionDef) and part.name == "__repr__" for part in node.body)
        if kinds & {"dataclass", "NamedTuple"} and not has_own:
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    written = ast.unparse(part.value) if part.value else ""
                    if LIKE_A_SECRET.search(part.target.id) and "repr=False" not in written:
                        yield part.target.id


def test_no_record_shows_a_member_that_is_called_like_a_secret() -> None:
    sources = [*ROOT.glob("libs/*/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")]
    found = {
        f"{path.as_posix().partition('/src/')[2]} {name}"
        for path in sources
        for name in unhidden(path.read_text())
    }
    wrong = "@dataclass(frozen=True)\nclass A:\n  access_token: str\n  code: str = field(repr=False)"

    assert list(unhidden(wrong)) == ["access_token"]
    assert found == set(NO_SECRETS)


def test_metrics_have_labels_with_few_values_only() -> None:
    for service in NAMES:
        importlib.import_module(f"eb_{schema_of(service)}.app")
    named: dict[str, tuple[str, ...]] = {
        next(iter(collector.describe())).name: getattr(collector, "_labelnames", ())
        for collector in set(REGISTRY._collector_to_names)
        if hasattr(collector, "_labelnames")
    }
    ours = {name: set(labels) for name, labels in named.items() if name.startswith("eb_")}

    assert len(ours) > 20
    assert {name: labels - LABELS for name, labels in ours.items() if labels - LABELS} == {}


RAISING = f"""
import structlog
from eb_kit.telemetry import start_logging
start_logging("test", "info")
def fail(token):
    kept = {{"password": token}}
    raise ValueError("it went wrong")
try:
    fail("".join(["{SECRET[:5]}", "{SECRET[5:]}"]))
except ValueError:
    structlog.get_logger().exception("request failed")
"""
LEAVING = """
import os, resource, ctypes
from eb_kit import cores
cores.leave_none()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def run(script: str) -> Any:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_a_traceback_in_the_log_shows_no_values() -> None:
    told = run(RAISING)

    assert "ValueError: it went wrong" in told
    assert "in fail" in told
    assert SECRET not in told


def test_a_service_in_production_leaves_no_core() -> None:
    assert run(LEAVING) == ("(0, 0) 0\n" if sys.platform == "linux" else "(0, 0) -1\n")

    lines = (ROOT / "libs/service-kit/src/eb_kit/service.py").read_text()
    assert 'if settings.eb_env == "production":\n        cores.leave_none()' in lines
