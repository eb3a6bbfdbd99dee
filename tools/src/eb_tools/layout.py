"""What one local stack consists of: its folder, its ports and its secrets, kept from start to start."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from eb_tools import names
from eb_tools.files import read_json, write_json
from eb_tools.ports import HOST, free_port, is_free
from eb_tools.rabbitmq import BrokerPorts
from eb_tools.services import ServicePorts

WANTED = {
    "gateway": 8080,
    "postgres": 15432,
    "rabbitmq": 15682,
    "rabbitmq-management": 15683,
    "rabbitmq-distribution": 15684,
    "rabbitmq-epmd": 15685,
    "dns": 15353,
    "gateway-metrics": 18080,
    **{name: 18101 + at for at, name in enumerate(names.NAMES)},
    **{f"{name}-admin": 18201 + at for at, name in enumerate(names.NAMES)},
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Layout:
    """The files of a stack."""

    folder: Path

    @property
    def state(self) -> Path:
        """Give the file in which the supervisor tells how far it is."""
        return self.folder / "supervisor.json"

    @property
    def pids(self) -> Path:
        """Give the file that names each process."""
        return self.folder / "pids.json"

    @property
    def credentials(self) -> Path:
        """Give the file of tokens for people and scripts."""
        return self.folder / "credentials.json"

    @property
    def facts(self) -> Path:
        """Give the file that says where the parts are, with the owner's DSN: for tests and tools."""
        return self.folder / "stack.json"

    @property
    def mail_key(self) -> Path:
        """Give the file of the key that signs the demo's mails."""
        return self.folder / "mail-key.pem"

    @property
    def secrets(self) -> Path:
        """Give the file of passwords and secrets that the stack made for itself."""
        return self.folder / "secrets.json"

    def secret_files(self, service: str) -> Path:
        """Give the folder of the files that a service's secrets come from, named like the settings."""
        return self.folder / "secrets" / service

    @property
    def clock(self) -> Path:
        """Give the file of the clock's offset."""
        return self.folder / "clock"

    @property
    def failpoints(self) -> Path:
        """Give the folder of steps at which services are to fail, a folder per service."""
        return self.folder / "failpoints"

    @property
    def mail(self) -> Path:
        """Give the mailbox folder."""
        return self.folder / "mail"

    @property
    def logs(self) -> Path:
        """Give the folder of logs."""
        return self.folder / "logs"

    def prepare(self) -> None:
        """Make the folders; the run folder is its owner's only, but for the way to the database's files."""
        for folder in (self.folder, self.mail, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        for folder in (self.mail, self.logs):
            folder.chmod(0o700)


@dataclass(frozen=True)
class Ports:
    """Which port each part listens on."""

    numbers: dict[str, int]

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]

    @property
    def broker(self) -> BrokerPorts:
        """Give the broker's four."""
        return BrokerPorts(
            self["rabbitmq"],
            self["rabbitmq-management"],
            self["rabbitmq-distribution"],
            self["rabbitmq-epmd"],
        )

    def of_service(self, name: str) -> ServicePorts:
        """Give a service's two."""
        return ServicePorts(self[name], self[f"{name}-admin"])

    @property
    def gateway_url(self) -> str:
        """Give the address clients use."""
        return f"http://{HOST}:{self['gateway']}"


def choose_ports(layout: Layout, say: Say) -> Ports:
    """Take the ports of the last start or the usual ones; step over taken ones and say so.

    With `EB_PORTS=any` (a stack beside another one) any free ones.
    """
    file = layout.folder / "ports.json"
    anywhere = os.environ.get("EB_PORTS") == "any"
    wanted = dict.fromkeys(WANTED, 0) if anywhere else dict(WANTED)
    if given := os.environ.get("EB_GATEWAY_PORT"):
        wanted["gateway"] = int(given)
    wanted |= {name: port for name, port in read_json(file).items() if name in WANTED and is_free(port)}
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        chosen[name] = free_port(port, chosen.values())
        if port and chosen[name] != port:
            say(f"port {port} is taken: {name} listens on {chosen[name]}")
    write_json(file, chosen)
    return Ports(chosen)


def load_secrets(layout: Layout, names: Iterable[str]) -> dict[str, str]:
    """Give the secrets of this stack, made on the first start and kept (0600)."""
    file = layout.secrets
    kept = read_json(file)
    values = {name: str(kept.get(name) or secrets.token_hex(20)) for name in names}
    if values != kept:
        write_json(file, values)
    return values
