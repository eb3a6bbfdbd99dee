"""Who may talk to whom in Kubernetes: everything is refused in both directions but what is named here.

What a service may reach follows from its settings: each setting that names another server stands in `PLACES`, and
each service that has the setting gets the way there. A policy per place, so that who runs the platform says once
where that place is (docs/security/deployment.md). Plain NetworkPolicy knows ports, labels and address ranges, no
names of hosts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Manifest = dict[str, Any]
Peers = tuple[Manifest, ...]

HTTP_PORT, ADMIN_PORT = 8000, 9000
GATEWAY_PORT = 8080
SCRAPER = {"event-builder/scrapes": "metrics"}
"""Label of the namespaces whose pods may read metrics."""
NAMESPACE = "kubernetes.io/metadata.name"
PRIVATE = {
    "0.0.0.0/0": ["10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"],
    "::/0": ["::1/128", "fc00::/7", "fe80::/10"],
}  # fmt: skip
"""Address ranges of the inside, the cloud's own service of metadata among them, below the whole of each family."""


def labels(name: str) -> dict[str, str]:
    """Give the labels that select one workload's pods."""
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "event-builder"}


def within(namespace: str, pod_labels: Mapping[str, str]) -> Peers:
    """Give the pods with these labels in one namespace."""
    return (
        {
            "namespaceSelector": {"matchLabels": {NAMESPACE: namespace}},
            "podSelector": {"matchLabels": dict(pod_labels)},
        },
    )


def named(namespace: str, name: str) -> Peers:
    """Give the pods of an application in one namespace."""
    return within(namespace, {"app.kubernetes.io/name": name})


PUBLIC: Peers = tuple({"ipBlock": {"cidr": all_of, "except": inside}} for all_of, inside in PRIVATE.items())
"""Everything outside, nothing inside."""


@dataclass(frozen=True)
class Place:
    """A server that pods go to: those whose settings name it, and `also` these. `component`: only with that one."""

    name: str
    setting: str | None
    ports: tuple[int, ...]
    peers: Peers
    also: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ("TCP",)
    component: str | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    """What the component sets beside, for all services."""


DNS: Manifest = {
    "to": list(within("kube-system", {"k8s-app": "kube-dns"})),
    "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
}
"""The cluster's own name service, which every pod needs."""
PLACES = (
    Place("postgresql", "database_url", (5432,), named("data", "postgresql"), also=("prepare",)),
    Place("rabbitmq", "amqp_url", (5671,), named("data", "rabbitmq")),
    Place("rabbitmq-admin", None, (15671,), named("data", "rabbitmq"), also=("prepare",)),
    Place("smtp", "smtp_host", (465, 587), PUBLIC),
    Place("oidc", "oidc_providers", (443,), PUBLIC, component="oidc"),
    Place(
        "traces", "otlp_endpoint", (4318,), named("observability", "otel-collector"), component="traces",
        told={"EB_OTLP_ENDPOINT": "https://otel-collector.observability:4318/v1/traces"},
    ),
    Place(
        "resolvers", "dns_servers", (53,), ({"ipBlock": {"cidr": "192.0.2.53/32"}},), protocols=("UDP", "TCP"),
        component="resolvers", told={"DNS_SERVERS": "192.0.2.53:53"},
    ),
)  # fmt: skip
"""Every place, with where it is as long as nobody says otherwise."""


def policy(name: str, pods: Manifest, **rules: list[Manifest]) -> Manifest:
    """Write a NetworkPolicy for the pods selected; `ingress` and `egress` name the directions that it bounds."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": labels("network")},
        "spec": {"podSelector": pods, "policyTypes": [way.capitalize() for way in rules], **rules},
    }


def doors(name: str, *, has_api: bool) -> Manifest:
    """Let the gateway in at the HTTP door and for its health check, and scrapers at the admin port; nobody else."""
    gateway = {"podSelector": {"matchLabels": labels("gateway")}}
    scrapers = {"namespaceSelector": {"matchLabels": SCRAPER}}
    http = {"from": [gateway], "ports": [{"protocol": "TCP", "port": HTTP_PORT}]}
    admin = {
        "from": [gateway, scrapers] if has_api else [scrapers],
        "ports": [{"protocol": "TCP", "port": ADMIN_PORT}],
    }
    return policy(name, {"matchLabels": labels(name)}, ingress=[*([http] if has_api else []), admin])


def of_gateway(services: Sequence[str]) -> list[Manifest]:
    """Let anybody in at the gateway, and the gateway to the services' doors and nowhere else."""
    pods = {"matchLabels": labels("gateway")}
    door = {"ports": [{"protocol": "TCP", "port": GATEWAY_PORT}]}
    onwards = {
        "to": [{"podSelector": _any_of(services)}],
        "ports": [{"protocol": "TCP", "port": port} for port in (HTTP_PORT, ADMIN_PORT)],
    }
    return [policy("gateway", pods, ingress=[door], egress=[onwards])]


def of_all() -> list[Manifest]:
    """Refuse everything that no other policy allows, but questions to the cluster's name service."""
    everything: Manifest = {}
    return [
        policy("refuse-all", everything, ingress=[], egress=[]),
        policy("to-cluster-dns", everything, egress=[DNS]),
    ]


def goers(place: Place, settings: Mapping[str, Collection[str]]) -> list[str]:
    """Name the workloads that go to a place; `settings` are the fields of each workload's settings."""
    return sorted({*place.also, *(name for name, fields in settings.items() if place.setting in fields)})


def way_to(place: Place, settings: Mapping[str, Collection[str]]) -> Manifest:
    """Let those who are told of a place go there."""
    ports = [{"protocol": protocol, "port": port} for port in place.ports for protocol in place.protocols]
    rule = {"to": list(place.peers), "ports": ports}
    return policy(f"to-{place.name}", _any_of(goers(place, settings)), egress=[rule])


def _any_of(names: Sequence[str]) -> Manifest:
    return {
        "matchLabels": {"app.kubernetes.io/part-of": "event-builder"},
        "matchExpressions": [
            {"key": "app.kubernetes.io/name", "operator": "In", "values": list(names)},
        ],
    }
