"""Settings by environment: validated at start, frozen, documented from the code.

A setting `X` is read from the variable X, or from the file that X_FILE names (secrets), which is looked at again
each second: what it then says holds from the next use on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from . import failpoints

PREFIX = "EB_"
LOOPBACK = ("127.0.0.1", "::1", "localhost")

CommaList = Annotated[
    tuple[str, ...],
    BeforeValidator(
        lambda v: tuple(p.strip() for p in v.split(",") if p.strip()) if isinstance(v, str) else v
    ),
]
"""A list written with commas."""

SHORTEST_SECRET = 16
LOCAL_CURSOR_SECRET = "local-cursor-secret"  # noqa: S105 - production refuses it


def _secret_lines(value: object) -> object:
    """Read secrets, one a line; ValueError where there is none, or one is too short."""
    lines = tuple(value.split()) if isinstance(value, str) else value
    if isinstance(lines, tuple) and (not lines or any(len(line) < SHORTEST_SECRET for line in lines)):
        raise ValueError(f"needs secrets of at least {SHORTEST_SECRET} characters, one a line")
    return lines


SecretLines = Annotated[tuple[str, ...], BeforeValidator(_secret_lines)]
"""A secret and those before it, one a line: the first is used, the others are still taken."""


class ServiceSettings(BaseModel):
    """What every service is told; services add their own fields."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    eb_env: Literal["local", "production"] = Field(
        "production",
        validation_alias="EB_ENV",
        description="`local` allows a movable clock, staff tokens and plain mailboxes, and listens on loopback only.",
    )
    database_url: str = Field(
        validation_alias="DATABASE_URL", description="PostgreSQL DSN of this service's own role."
    )
    amqp_url: str = Field(validation_alias="AMQP_URL", description="RabbitMQ URL of this service's own user.")
    http_host: str = Field("127.0.0.1", description="Address of the HTTP door.")
    http_port: int = Field(description="Port of the HTTP door.")
    admin_port: int = Field(description="Port of livez, readyz and metrics; never behind the gateway.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    network_encrypts: bool = Field(
        False,
        description="What lies between the servers encrypts by itself (a mesh, one machine): production then takes"
        " addresses of database, broker, mail and traces without TLS.",
    )
    clock_file: Path | None = Field(
        None, description="Local runs: file that holds the clock's offset in seconds."
    )
    public_url: str = Field("http://127.0.0.1:8080", description="Where clients reach the gateway.")
    token_issuer: str = Field("https://event-builder.local", description="`iss` of access tokens.")
    cursor_secret: SecretLines = Field(
        (LOCAL_CURSOR_SECRET,),
        description="Key that binds list cursors to caller and filters. One a line: the first is used, cursors made"
        " with the others are still taken.",
    )
    step_up_s: int = Field(
        3_600, ge=60, description="How recent a sign-in must be for roles, keys, billing mappings and assist."
    )
    pool_size: int = Field(8, ge=1, le=100, description="Most PostgreSQL connections of this process.")
    drain_timeout_s: float = Field(25.0, gt=0, description="Longest wait for work in hand at SIGTERM.")
    otlp_endpoint: str | None = Field(
        None, description="OTLP/HTTP endpoint for traces; none: spans aren't sent."
    )
    rate_limits: Literal["on", "off", "auto"] = Field(
        "auto",
        description="Limits of requests and attempts per minute; auto: off in a local run, on elsewhere.",
    )
    docs_enabled: bool = Field(True, description="Serve /docs and /openapi.json.")
    coherence_window_s: int = Field(
        60,
        ge=1,
        le=3600,
        description="Length of the windows in which sent and handled messages are compared.",
    )
    coherence_grace_s: float = Field(
        120, gt=0, description="How long after it was sent a message may be under way before it is missed."
    )
    coherence_check_s: float = Field(
        20, gt=0, description="How often sent and handled messages are compared."
    )
    kept_mb: int = Field(
        64,
        ge=1,
        description="Most memory for messages sent past the outbox until they are seen to be handled.",
    )
    failpoints: CommaList = Field(
        (),
        description="Local runs: `step=die|weather|sleep:SECONDS[@N]`, with commas. Refused in production.",
    )
    failpoints_dir: Path | None = Field(
        None, description="Local runs: folder with a file per service and step. Refused in production."
    )

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Show no values: they hold secrets, and whatever logs its settings would log those."""
        return [("eb_env", self.eb_env)]

    @property
    def has_limits(self) -> bool:
        """Tell whether requests and attempts are limited."""
        return self.rate_limits == "on" or (self.rate_limits == "auto" and self.eb_env == "production")

    @model_validator(mode="after")
    def _local_stays_on_loopback(self) -> ServiceSettings:
        if self.eb_env == "local" and self.http_host not in LOOPBACK:
            raise ValueError("EB_ENV=local listens on loopback only: set EB_HTTP_HOST=127.0.0.1")
        return self

    @model_validator(mode="after")
    def _production_never_fails_on_purpose(self) -> ServiceSettings:
        if self.eb_env == "production" and (self.failpoints or self.failpoints_dir):
            raise ValueError("EB_FAILPOINTS and EB_FAILPOINTS_DIR are for EB_ENV=local")
        failpoints.parse(self.failpoints)
        return self

    @model_validator(mode="after")
    def _production_has_its_own_secret(self) -> ServiceSettings:
        if self.eb_env == "production" and LOCAL_CURSOR_SECRET in self.cursor_secret:
            raise ValueError("EB_CURSOR_SECRET must be set in production")
        return self

    @model_validator(mode="after")
    def _production_is_reached_by_https(self) -> ServiceSettings:
        url = urlsplit(self.public_url)
        if self.eb_env == "production" and url.scheme != "https" and url.hostname not in LOOPBACK:
            raise ValueError("EB_PUBLIC_URL must begin with https: in production")
        return self

    @model_validator(mode="after")
    def _production_speaks_tls(self) -> ServiceSettings:
        plain = self.plain_ways()
        if self.eb_env == "production" and plain and not self.network_encrypts:
            lacking = "; ".join(f"{variable} {lacks}" for variable, lacks in plain.items())
            raise ValueError(f"in production, unless EB_NETWORK_ENCRYPTS=true: {lacking}")
        return self

    def plain_ways(self) -> dict[str, str]:
        """Name the settings that lead to a server without TLS or without proof of who it is, with what they lack."""
        found: dict[str, str] = {}
        if not is_verified(self.database_url):
            found["DATABASE_URL"] = "must say sslmode=verify-full"
        broker = urlsplit(self.amqp_url)
        if broker.scheme != "amqps" or "no_verify_ssl" in parse_qs(broker.query):
            found["AMQP_URL"] = "must begin with amqps: and verify"
        if self.otlp_endpoint is not None and urlsplit(self.otlp_endpoint).scheme != "https":
            found["EB_OTLP_ENDPOINT"] = "must begin with https:"
        return found


S = TypeVar("S", bound=ServiceSettings)


def is_verified(dsn: str) -> bool:
    """Tell whether PostgreSQL is reached by its own socket, or by TLS that proves its name."""
    query = parse_qs(urlsplit(dsn).query)
    by_socket = not urlsplit(dsn).hostname and all(host.startswith("/") for host in query.get("host", ["/"]))
    return by_socket or query.get("sslmode") == ["verify-full"]


def variable_of(name: str, field: FieldInfo) -> str:
    """Name the environment variable of a field."""
    return str(field.validation_alias or PREFIX + name.upper())


def load(model: type[S], environ: Mapping[str, str]) -> S:
    """Read and validate the settings; on errors a line each on stderr, and exit 2."""
    try:
        return model.model_validate(_values(model, environ))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}: {error.filename2}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    except ValidationError as error:
        _explain(model, error)


def _values(model: type[ServiceSettings], environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if (value := _read(environ, variable_of(name, field))) is not None:
            values[str(field.validation_alias or name)] = value
    return values


def _read(environ: Mapping[str, str], variable: str) -> str | None:
    path = environ.get(f"{variable}_FILE")
    if not path:
        return environ.get(variable)
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{variable}_FILE", None, path) from None


class SettingsFiles:
    """The files that settings come from, which may be written again while the process runs."""

    def __init__(self, model: type[ServiceSettings], environ: Mapping[str, str]) -> None:
        self._model = model
        self._environ = dict(environ)
        variables = (variable_of(name, field) for name, field in model.model_fields.items())
        named = (environ.get(f"{variable}_FILE") for variable in variables)
        self._paths = [Path(path) for path in named if path]
        self._seen = self._stamps()

    def _stamps(self) -> list[tuple[int, int]]:
        stats = [path.stat() for path in self._paths]
        return [(stat.st_mtime_ns, stat.st_ino) for stat in stats]

    def load_changed(self) -> ServiceSettings | None:
        """Give the settings as the files now say, None where none was written again.

        Raises OSError for a file that can't be read, ValidationError for one that says nonsense: the settings so
        far hold, and the next look tries again.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return None
        loaded = self._model.model_validate(_values(self._model, self._environ))
        self._seen = stamps
        return loaded


def _explain(model: type[ServiceSettings], error: ValidationError) -> NoReturn:
    for fault in error.errors():
        name = str(fault["loc"][0]) if fault["loc"] else ""
        field = model.model_fields.get(name)
        where = variable_of(name, field) if field else name or "settings"
        print(f"{where}: {fault['msg']}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2) from None
