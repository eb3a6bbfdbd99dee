"""What compose and Kubernetes tell the services is what their settings take."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from eb_kit.settings import load
from eb_tools import manifests, network
from eb_tools.names import NAMES, schema_of
from eb_tools.prepare import must_speak_tls, read_passwords
from eb_tools.trouble import Trouble

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose.yml"
SECRET = "a-secret-of-the-cluster"
ONLY_AUTH = {"EB_AUTH_SECRET": SECRET, "EB_SMTP_HOST": "mail"}


def compose() -> dict[str, Any]:
    """Read the file with every variable filled in."""
    text = re.sub(r"\$\{(\w+):\?\}", r"\1-of-the-machine", COMPOSE.read_text())
    return dict(yaml.safe_load(text)["services"])


def settings_of(service: str) -> Any:
    return importlib.import_module(f"eb_{schema_of(service)}.settings").Settings


@pytest.mark.parametrize("service", NAMES)
def test_a_service_starts_with_what_compose_tells_it(service: str) -> None:
    told = compose()[service]

    settings = load(settings_of(service), {k: str(v) for k, v in told["environment"].items()})

    assert told["command"] == ["python", "-m", f"eb_{schema_of(service)}"]
    assert settings.eb_env == "production"
    assert f"://eb_{schema_of(service)}:" in settings.database_url
    assert f"://{service}:" in settings.amqp_url


def test_compose_prepares_every_service() -> None:
    told = compose()["prepare"]["environment"]["EB_SERVICE_PASSWORDS"]

    assert set(read_passwords(told)) == set(NAMES)


def test_what_prepares_compose_may_speak_plainly_on_its_one_machine() -> None:
    must_speak_tls(compose()["prepare"]["environment"])


def test_preparing_speaks_tls_or_says_why_not() -> None:
    told = {
        "DATABASE_URL": "postgresql://o@db/eb?sslmode=verify-full",
        "RABBITMQ_ADMIN_URL": "https://admin@mq:15671",
    }
    must_speak_tls(told)

    for plain in ({"DATABASE_URL": "postgresql://o@db/eb"}, {"RABBITMQ_ADMIN_URL": "http://admin@mq:15672"}):
        with pytest.raises(Trouble, match=next(iter(plain))):
            must_speak_tls(told | plain)
        must_speak_tls(told | plain | {"EB_NETWORK_ENCRYPTS": "true"})


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps(dict.fromkeys([*NAMES, "other"], "x"))])
def test_passwords_of_other_than_our_services_are_refused(text: str) -> None:
    with pytest.raises(Trouble):
        read_passwords(text)


@pytest.mark.parametrize("workload", manifests.workloads(), ids=lambda workload: workload.name)
def test_a_pod_starts_with_what_kubernetes_tells_it(workload: manifests.Workload) -> None:
    [_, config] = manifests.common()
    dsn = f"postgresql://x@db/eb?sslmode=verify-full&sslrootcert={manifests.CA_FOLDER}/ca.crt"
    secrets = {"DATABASE_URL": dsn, "AMQP_URL": "amqps://x@mq/", "EB_CURSOR_SECRET": SECRET}

    settings = load(settings_of(workload.service), config["data"] | secrets | ONLY_AUTH)

    assert (settings.http_port, settings.admin_port) == (manifests.HTTP_PORT, manifests.ADMIN_PORT)
    assert not settings.network_encrypts


@pytest.mark.parametrize(
    "place", [place for place in network.PLACES if place.told], ids=lambda place: place.name
)
def test_a_service_starts_with_what_a_component_tells_it(place: network.Place) -> None:
    [_, config] = manifests.common()
    secrets = {
        "DATABASE_URL": "postgresql://x@db/eb?sslmode=verify-full",
        "AMQP_URL": "amqps://x@mq/",
        "EB_CURSOR_SECRET": SECRET,
    }

    for service in NAMES:
        settings = load(settings_of(service), config["data"] | secrets | ONLY_AUTH | dict(place.told))
        assert getattr(settings, place.setting, "") is not None


def test_a_cluster_that_encrypts_by_itself_takes_plain_addresses() -> None:
    [_, config] = manifests.common()
    told = yaml.safe_load(manifests.encrypted_network()["patches"][0]["patch"])["data"]
    plain = {"DATABASE_URL": "postgresql://x@db/eb", "AMQP_URL": "amqp://x@mq/", "EB_CURSOR_SECRET": SECRET}

    assert load(settings_of("ledger"), config["data"] | plain | told).network_encrypts


def test_every_service_has_a_workload_that_opens_each_of_its_doors() -> None:
    doors: dict[str, set[str]] = {}
    for workload in manifests.workloads():
        doors.setdefault(workload.service, set()).update(workload.doors.split(","))

    assert doors == {name: {"api", "consumers", "jobs"} for name in NAMES}


def test_a_changed_file_of_the_base_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "K8S", tmp_path)
    monkeypatch.setattr(manifests, "GATEWAY", tmp_path)
    manifests.main()
    assert manifests.problems() == []

    (tmp_path / "base" / "auth.yaml").write_text("kind: Other\n")

    assert len(manifests.problems()) == 1
