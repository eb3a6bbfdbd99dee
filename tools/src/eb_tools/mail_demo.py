"""What a local run needs to prove a domain for real: a small authoritative DNS server and a signing mail sender.

`python -m eb_tools.mail_demo dns --port 15353 --key FILE` serves the zone `test`: every domain below it
publishes the same DKIM key under the selector `demo`, and asks for DMARC. `prove(...)` sends a mail signed with
that key through `/verify/inbound/raw`, as a mail server would.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import dkim  # type: ignore[import-untyped]
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from eb_tools.files import SECRET
from eb_tools.ports import HOST

SELECTOR = "demo"
ZONE = "test"
TTL_S = 60
STRING_BYTES = 255
PLAIN_UDP_BYTES = 512
SIGNED_FIELDS = ("from", "to", "subject", "date", "message-id")

Texts = list[bytes]
Zone = Callable[[str], Texts | None]
"""Gives the TXT records of a name (lower case, no last dot), [] for none; None answers SERVFAIL."""


@dataclass
class DnsServer:
    """An authoritative server of TXT records over UDP and TCP on loopback. `port` 0 takes a free one.

    `dropped` names get no answer at all, as from a dead server. `questions` is what was asked.
    """

    zone: Zone
    port: int = 0
    dropped: set[str] = field(default_factory=set)
    questions: list[str] = field(default_factory=list)
    _udp: asyncio.DatagramTransport | None = None
    _tcp: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """Give what goes into DNS_SERVERS."""
        return f"{HOST}:{self.port}"

    async def start(self) -> None:
        """Listen on both protocols; OSError if the port is taken."""
        self._tcp = await asyncio.start_server(self._converse, HOST, self.port)
        self.port = int(self._tcp.sockets[0].getsockname()[1])
        self._udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(HOST, self.port)
        )

    async def stop(self) -> None:
        """Close both sockets."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            await self._tcp.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def respond(self, wire: bytes, *, is_udp: bool) -> bytes | None:
        """Give the response to a query; None for what deserves none."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if query.opcode() != dns.opcode.QUERY or not query.question:
            return None
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        self.questions.append(name)
        return None if name in self.dropped else _bounded(self._response(query, name), query, is_udp)

    def _response(self, query: dns.message.Message, name: str) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        texts = self.zone(name)
        if texts is None:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif not texts:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif query.question[0].rdtype == dns.rdatatype.TXT:
            response.answer.append(_rrset(query, texts))
        return response

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while length := await reader.read(2):
                wire = await reader.readexactly(int.from_bytes(length, "big"))
                response = self.respond(wire, is_udp=False)
                if response is None:
                    break
                writer.write(len(response).to_bytes(2, "big") + response)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        response = self._server.respond(data, is_udp=True)
        if response is not None and self._transport is not None:
            self._transport.sendto(response, addr)


def _rrset(query: dns.message.Message, texts: Texts) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(
        query.question[0].name, TTL_S, dns.rdataclass.IN, dns.rdatatype.TXT, [_quoted(text) for text in texts]
    )


def _quoted(text: bytes) -> str:
    """Write TXT data in presentation form, in strings of at most 255 bytes."""
    parts = [text[start : start + STRING_BYTES] for start in range(0, max(len(text), 1), STRING_BYTES)]
    return " ".join('"' + "".join(f"\\{byte:03d}" for byte in part) + '"' for part in parts)


def _bounded(response: dns.message.Message, query: dns.message.Message, is_udp: bool) -> bytes:
    """Write the response; over UDP cut it off, and say so, where it is larger than the asker takes."""
    wire = response.to_wire(max_size=65535)
    if not is_udp or len(wire) <= max(query.payload, PLAIN_UDP_BYTES):
        return wire
    response.answer.clear()
    response.flags |= dns.flags.TC
    return response.to_wire()


def key_record(key: RSAPrivateKey) -> bytes:
    """Give the DKIM key record that publishes `key`."""
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)


def demo_zone(key: RSAPrivateKey) -> Zone:
    """Give the local run's zone: each domain below `test` has the demo key and a DMARC record."""
    record = key_record(key)

    def texts(name: str) -> Texts:
        first, _, rest = name.partition(".")
        if not rest.endswith("." + ZONE):
            return []
        if first == SELECTOR and rest.startswith("_domainkey."):
            return [record]
        return [b"v=DMARC1; p=reject"] if first == "_dmarc" else []

    return texts


def load_key(file: Path) -> RSAPrivateKey:
    """Give the demo's signing key, made on the first call and kept in `file` (0600)."""
    if not file.exists():
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, SECRET), "wb") as handle:
            handle.write(_pem(generate_private_key(65537, 2048)))
        fresh.replace(file)
    key = load_pem_private_key(file.read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def _pem(key: RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def signed_mail(domain: str, send_to: str, token: str, key: RSAPrivateKey) -> bytes:
    """Write the mail that proves `domain`: from somebody there, to the claim's address, the token as Subject."""
    head = {
        "From": f"Office <office@{domain}>",
        "To": send_to,
        "Subject": token,
        "Date": formatdate(),
        "Message-ID": f"<{time.time_ns()}@{domain}>",
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=utf-8",
    }
    lines = [f"{name}: {value}" for name, value in head.items()]
    mail = "\r\n".join([*lines, "", "This proves our domain.", ""]).encode()
    fields = [name.encode() for name in SIGNED_FIELDS]
    signature: bytes = dkim.sign(
        mail,
        SELECTOR.encode(),
        domain.encode(),
        _pem(key),
        canonicalize=(b"relaxed", b"relaxed"),
        include_headers=fields,
    )
    return signature + mail


def raw_headers(
    secret: str, body: bytes, envelope: Mapping[str, str], at: int | None = None
) -> dict[str, str]:
    """Give the headers that sign a raw mail; `envelope` has from, to, ip and helo, `at` Unix seconds."""
    stamp = str(int(time.time()) if at is None else at)
    signed = (
        "v1",
        stamp,
        *(envelope[name] for name in ("from", "to", "ip", "helo")),
        hashlib.sha256(body).hexdigest(),
    )
    mac = hmac.new(secret.encode(), "\n".join(signed).encode(), hashlib.sha256).hexdigest()
    return {
        "Content-Type": "message/rfc822",
        "X-EB-Timestamp": stamp,
        "X-EB-Envelope-From": envelope["from"],
        "X-EB-Envelope-To": envelope["to"],
        "X-EB-Client-IP": envelope["ip"],
        "X-EB-Helo": envelope["helo"],
        "X-EB-Signature": f"v1={mac}",
    }


async def prove(
    http: aiohttp.ClientSession, gateway_url: str, claim: Mapping[str, str], key: RSAPrivateKey, secret: str
) -> str:
    """Send the mail that proves a claim (as its POST answered); give the mail_id. The verdict follows soon."""
    domain, send_to = claim["domain"], claim["send_to"]
    mail = signed_mail(domain, send_to, claim["token"], key)
    envelope = {"from": f"office@{domain}", "to": send_to, "ip": HOST, "helo": f"mail.{domain}"}
    async with http.post(
        f"{gateway_url}/verify/inbound/raw", data=mail, headers=raw_headers(secret, mail, envelope)
    ) as answer:
        answer.raise_for_status()
        accepted = await answer.json()
    return str(accepted["mail_id"])


async def _serve(port: int, key_file: Path) -> None:
    async with DnsServer(demo_zone(load_key(key_file)), port) as server:
        print(f"DNS for the zone {ZONE} on {server.address}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Run the local zone until interrupted."""
    parser = argparse.ArgumentParser(prog="eb_tools.mail_demo", description=__doc__)
    serve = parser.add_subparsers(required=True).add_parser("dns", help="serve the local zone")
    serve.add_argument("--port", type=int, required=True)
    serve.add_argument("--key", type=Path, required=True, help="file of the signing key, made if missing")
    asked = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(asked.port, asked.key))


if __name__ == "__main__":
    main()
