"""TXT questions over DNS, asynchronously, to the servers that the settings name."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable
from datetime import datetime

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from ..domain.dns import Answer, Found

LIFETIME_S = 8.0
TIMEOUT_S = 2.5
PAYLOAD_BYTES = 1232
MAX_TEXTS = 50
DNS_PORT = 53


class TxtResolver:
    """Asks for TXT records. `servers` are `host:port` or `[v6]:port`; none: the system's resolver."""

    def __init__(self, servers: tuple[str, ...], machine_now: Callable[[], datetime]) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [
                dns.nameserver.Do53Nameserver(host, port) for host, port in map(read_server, servers)
            ]
        self._resolver.search = []
        self._resolver.timeout = TIMEOUT_S
        self._resolver.lifetime = LIFETIME_S
        self._resolver.use_edns(0, 0, PAYLOAD_BYTES)
        self._machine_now = machine_now

    async def ask(self, names: Iterable[str]) -> dict[str, Answer]:
        """Ask for all `names` at once; never raises for what DNS does: a failure is an answer too."""
        wanted = list(dict.fromkeys(names))
        return dict(zip(wanted, await asyncio.gather(*map(self._ask, wanted)), strict=True))

    async def _ask(self, name: str) -> Answer:
        found, texts = await self._lookup(name)
        return Answer(found, texts, self._machine_now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"))

    async def _lookup(self, name: str) -> tuple[Found, tuple[bytes, ...]]:
        try:
            absolute = dns.name.from_text(name)
            answer = await self._resolver.resolve(absolute, dns.rdatatype.TXT)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer, dns.name.LabelTooLong, dns.name.NameTooLong):
            return Found.NOTHING, ()
        except (dns.exception.DNSException, OSError):
            return Found.FAILED, ()
        texts = tuple(b"".join(record.strings) for record in answer)
        return (Found.RECORDS, texts) if len(texts) <= MAX_TEXTS else (Found.FAILED, ())


def read_server(text: str) -> tuple[str, int]:
    """Read `host:port`, `[v6]:port` or an address alone (port 53); ValueError unless the host is an address."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.startswith("[")):
        host, port = text, str(DNS_PORT)
    return str(ipaddress.ip_address(host.strip("[]"))), int(port)
