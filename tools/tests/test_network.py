"""Who may talk to whom, read from the manifests as a cluster reads them."""

from __future__ import annotations

import importlib
import re
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from eb_tools import manifests, network
from eb_tools.names import NAMES, schema_of

WORKLOADS = {workload.name: workload for workload in manifests.workloads()}
EVERYBODY = [*WORKLOADS, "gateway", "prepare"]
COMPONENTS = ("oidc", "traces", "resolvers")
DNS = {("UDP", 53), ("TCP", 53)}
NAMED_BY = {
    "database_url": {("TCP", 5432)},
    "amqp_url": {("TCP", 5671)},
    "smtp_host": {("TCP", 465), ("TCP", 587)},
    "oidc_providers": {("TCP", 443)},
    "otlp_endpoint": {("TCP", 4318)},
    "dns_servers": DNS,
}
"""What each setting leads to."""
OURS = {"public_url", "http_host"}
"""Settings that look alike and lead nowhere."""


@cache
def policies() -> list[Any]:
    """Give all of them, those of components too."""
    files = (file.read_text() for file in manifests.K8S.rglob("*.yaml"))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = (one for text in files for one in yaml.load_all(text, Loader=loader))
    return [one["spec"] for one in found if one["kind"] == "NetworkPolicy"]


def selects(selector: Any, labels: dict[str, str]) -> bool:
    has_labels = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    terms = selector.get("matchExpressions", [])
    assert all(term["operator"] == "In" for term in terms)
    return has_labels and all(labels.get(term["key"]) in term["values"] for term in terms)


def rules(name: str, way: str) -> list[Any]:
    """Give the rules that hold for a workload's pods in a direction."""
    labels = network.labels(name)
    of_pod = [spec for spec in policies() if selects(spec["podSelector"], labels)]
    return [rule for spec in of_pod for rule in spec.get(way, [])]


def ports(found: list[Any]) -> set[tuple[str, int]]:
    return {(port["protocol"], port["port"]) for rule in found for port in rule["ports"]}


def fields_of(service: str) -> set[str]:
    return set(importlib.import_module(f"eb_{schema_of(service)}.settings").Settings.model_fields)


@pytest.mark.parametrize("name", EVERYBODY)
def test_every_pod_is_bounded_in_both_directions(name: str) -> None:
    labels = network.labels(name)
    bounded = [spec["policyTypes"] for spec in policies() if selects(spec["podSelector"], labels)]

    assert {way for ways in bounded for way in ways} == {"Ingress", "Egress"}
    assert all(rule.get("ports") and rule.get("to") for rule in rules(name, "egress"))


def test_a_pod_that_nobody_thought_of_may_ask_the_name_service_only() -> None:
    assert rules("another", "ingress") == []
    assert rules("another", "egress") == [network.DNS]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_service_reaches_what_its_settings_name_and_nothing_else(name: str) -> None:
    named = [NAMED_BY[field] for field in fields_of(WORKLOADS[name].service) & set(NAMED_BY)]

    assert ports(rules(name, "egress")) == DNS.union(*named)


@pytest.mark.parametrize("service", NAMES)
def test_every_setting_that_names_a_server_has_a_way_there(service: str) -> None:
    like_a_server = re.compile(r"(url|uri|dsn|host|hosts|endpoint|servers?|providers?|proxy)$")

    assert {name for name in fields_of(service) if like_a_server.search(name)} - OURS <= set(NAMED_BY)


@pytest.mark.parametrize("name", WORKLOADS)
def test_only_the_gateway_reaches_a_services_door(name: str) -> None:
    doors = [rule for rule in rules(name, "ingress") if ("TCP", network.HTTP_PORT) in ports([rule])]
    gateway = [{"podSelector": {"matchLabels": network.labels("gateway")}}]

    assert [rule["from"] for rule in doors] == ([gateway] if WORKLOADS[name].has_api else [])
    assert all(rule.get("from") for rule in rules(name, "ingress"))


def test_the_gateway_reaches_services_and_the_job_what_it_prepares() -> None:
    assert ports(rules("gateway", "egress")) == DNS | {
        ("TCP", network.HTTP_PORT),
        ("TCP", network.ADMIN_PORT),
    }
    assert ports(rules("prepare", "egress")) == DNS | {("TCP", 5432), ("TCP", 15671)}
    assert rules("prepare", "ingress") == []


@pytest.mark.parametrize(
    "inside", ["169.254.169.254", "10.0.0.1", "192.168.0.1", "127.0.0.1", "fd00::1", "::1"]
)
def test_the_way_outside_leads_nowhere_inside(inside: str) -> None:
    address = ip_address(inside)
    blocks = [peer["ipBlock"] for peer in network.PUBLIC]
    reached = [
        block
        for block in blocks
        if address in ip_network(block["cidr"])
        and not any(address in ip_network(left) for left in block["except"])
    ]

    assert reached == []


def test_a_component_names_the_place_that_it_opens() -> None:
    places = {place.component: place for place in network.PLACES if place.component}

    collector = urlsplit(places["traces"].told["EB_OTLP_ENDPOINT"])
    server, _, port = places["resolvers"].told["DNS_SERVERS"].rpartition(":")

    assert set(places) == set(COMPONENTS)
    assert places["traces"].ports == (collector.port,)
    assert collector.hostname == "otel-collector.observability"
    assert places["traces"].peers == network.named("observability", "otel-collector")
    assert places["resolvers"].ports == (int(port),)
    assert places["resolvers"].peers == ({"ipBlock": {"cidr": f"{server}/32"}},)
