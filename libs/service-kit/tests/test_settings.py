from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from eb_kit.settings import ServiceSettings, load

GOOD = {
    "EB_ENV": "local",
    "DATABASE_URL": "postgresql://eb_x@127.0.0.1/eb",
    "AMQP_URL": "amqp://x@127.0.0.1/",
    "EB_HTTP_PORT": "9001",
    "EB_ADMIN_PORT": "9002",
}


class WithSecret(ServiceSettings):
    webhook_secret: str = Field(description="A secret.")


def test_settings_come_from_the_environment() -> None:
    settings = load(ServiceSettings, GOOD)

    assert (settings.http_port, settings.admin_port, settings.eb_env) == (9001, 9002, "local")


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")

    assert load(WithSecret, {**GOOD, "EB_WEBHOOK_SECRET_FILE": str(secret)}).webhook_secret == "s3cret"


def test_each_wrong_setting_is_one_line_that_names_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        load(WithSecret, {**GOOD, "EB_HTTP_PORT": "many", "DATABASE_URL": "x"})

    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert [line.split(":")[0] for line in sorted(lines)] == ["EB_HTTP_PORT", "EB_WEBHOOK_SECRET"]


def test_a_missing_secret_file_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(WithSecret, {**GOOD, "EB_WEBHOOK_SECRET_FILE": "/nowhere/secret"})

    assert "EB_WEBHOOK_SECRET_FILE: No such file" in capsys.readouterr().err


def test_a_local_process_refuses_to_listen_beyond_loopback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(ServiceSettings, {**GOOD, "EB_HTTP_HOST": "0.0.0.0"})

    assert "loopback" in capsys.readouterr().err


def test_production_needs_a_cursor_secret_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(ServiceSettings, {**GOOD, "EB_ENV": "production"})

    assert "EB_CURSOR_SECRET" in capsys.readouterr().err


PRODUCTION = {
    **GOOD,
    "EB_ENV": "production",
    "EB_CURSOR_SECRET": "a-secret-of-its-own",
    "EB_PUBLIC_URL": "https://api.example.org",
    "DATABASE_URL": "postgresql://eb_x@db.example.org/eb?sslmode=verify-full",
    "AMQP_URL": "amqps://x@mq.example.org/",
}


def test_production_starts_with_tls_everywhere_or_where_the_network_encrypts() -> None:
    plain = {
        "DATABASE_URL": "postgresql://x@db/eb",
        "AMQP_URL": "amqp://x@mq/",
        "EB_OTLP_ENDPOINT": "http://c/",
    }

    assert load(ServiceSettings, {**PRODUCTION, "EB_OTLP_ENDPOINT": "https://c/"}).plain_ways() == {}
    assert (
        len(load(ServiceSettings, {**PRODUCTION, **plain, "EB_NETWORK_ENCRYPTS": "true"}).plain_ways()) == 3
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "postgresql://x@db/eb"),
        ("DATABASE_URL", "postgresql://x@db/eb?sslmode=require"),
        ("DATABASE_URL", "postgresql://x@db/eb?sslmode=verify-full&sslmode=disable"),
        ("DATABASE_URL", "postgresql:///eb?host=db.example.org"),
        ("AMQP_URL", "amqp://x@mq/"),
        ("AMQP_URL", "amqps://x@mq/?no_verify_ssl=1"),
        ("EB_OTLP_ENDPOINT", "http://collector:4318/v1/traces"),
        ("EB_PUBLIC_URL", "http://api.example.org"),
    ],
)
def test_production_refuses_a_way_without_tls(
    variable: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        load(ServiceSettings, {**PRODUCTION, variable: value})

    assert variable in capsys.readouterr().err
    if variable != "EB_PUBLIC_URL":
        assert load(ServiceSettings, {**GOOD, variable: value}).eb_env == "local"


def test_a_socket_of_the_machine_needs_no_tls() -> None:
    dsn = "postgresql:///eb?host=/run/postgresql"

    assert load(ServiceSettings, {**PRODUCTION, "DATABASE_URL": dsn}).database_url == dsn


def test_every_setting_is_described() -> None:
    assert [name for name, field in ServiceSettings.model_fields.items() if not field.description] == []
