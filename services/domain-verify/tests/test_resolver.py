"""DNS past the edge: both protocols, long records, failures, and the demo's own zone."""

from __future__ import annotations

from pathlib import Path

import pytest

from eb_domain_verify.domain.dns import Found
from eb_domain_verify.outside.resolver import TxtResolver, read_server
from eb_kit.clock import Clock
from eb_tools.mail_demo import DnsServer, demo_zone, key_record, load_key

LONG = b"x" * 3000


def zone(name: str) -> list[bytes] | None:
    return {
        "one.example": [b"hello"],
        "two.example": [b"a", b"b"],
        "long.example": [LONG],
        "broken.example": None,
        "binary.example": [bytes(range(256))],
        "many.example": [str(number).encode() for number in range(60)],
    }.get(name, [])


async def test_answers_failures_and_long_records() -> None:
    async with DnsServer(zone) as server:
        server.dropped.add("silent.example")
        resolver = TxtResolver((server.address,), Clock().machine_now)

        answers = await resolver.ask(
            [
                "one.example",
                "two.example",
                "long.example",
                "broken.example",
                "none.example",
                "binary.example",
                "many.example",
            ]
        )

    assert answers["one.example"].texts == (b"hello",)
    assert sorted(answers["two.example"].texts) == [b"a", b"b"]
    assert answers["long.example"].texts == (LONG,)
    assert answers["binary.example"].texts == (bytes(range(256)),)
    assert answers["none.example"].found is Found.NOTHING
    assert answers["broken.example"].found is Found.FAILED
    assert answers["many.example"].found is Found.FAILED


async def test_a_dead_server_is_a_failure() -> None:
    resolver = TxtResolver(("127.0.0.1:1",), Clock().machine_now)
    resolver._resolver.lifetime = 0.5

    answers = await resolver.ask(["one.example"])

    assert answers["one.example"].found is Found.FAILED


def test_servers_are_addresses_with_a_port() -> None:
    assert read_server("127.0.0.1:15353") == ("127.0.0.1", 15353)
    assert read_server("192.0.2.1") == ("192.0.2.1", 53)
    assert read_server("[2001:db8::1]:5353") == ("2001:db8::1", 5353)
    assert read_server("2001:db8::1") == ("2001:db8::1", 53)
    with pytest.raises(ValueError, match=r"dns\.example"):
        read_server("dns.example:53")


async def test_the_demo_zone_publishes_the_demo_key_below_test(tmp_path: Path) -> None:
    key = load_key(tmp_path / "demo.pem")
    assert load_key(tmp_path / "demo.pem").private_numbers() == key.private_numbers()
    assert (tmp_path / "demo.pem").stat().st_mode & 0o777 == 0o600

    async with DnsServer(demo_zone(key)) as server:
        resolver = TxtResolver((server.address,), Clock().machine_now)
        answers = await resolver.ask(
            [
                "demo._domainkey.harbour.test",
                "_dmarc.harbour.test",
                "demo._domainkey.harbour.example",
                "_dmarc.test",
            ]
        )

    assert answers["demo._domainkey.harbour.test"].texts == (key_record(key),)
    assert answers["_dmarc.harbour.test"].texts == (b"v=DMARC1; p=reject",)
    assert answers["demo._domainkey.harbour.example"].found is Found.NOTHING
    assert answers["_dmarc.test"].found is Found.NOTHING
