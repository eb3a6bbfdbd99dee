"""The Kubernetes base: all seven services from one model, written to deploy/k8s/base; haproxy.cfg for containers.

`python -m eb_tools.manifests` writes the files again; `make lint` compares them with the model and checks each
against the Kubernetes API. Secrets are named, never contained: `<service>-secrets` holds DATABASE_URL, AMQP_URL
and what else the service must be told in private; `prepare-secrets` holds the owner's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eb_tools import gateway
from eb_tools.paths import repository
from eb_tools.services import NAMES, schema_of

BASE = repository() / "deploy" / "k8s" / "base"
GATEWAY = repository() / "deploy" / "gateway"
IMAGE = "event-builder"
HAPROXY = "haproxy:3.2"
"""The oldest branch that answers in our words what never became a request."""
VERSION = "0.1.0"
HTTP_PORT, ADMIN_PORT = 8000, 9000
GATEWAY_PORT = 8080
NOBODY = 10001

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """One Deployment: a service, the doors it opens, and what it may use."""

    name: str
    service: str
    doors: str = "api,consumers,jobs"
    replicas: int = 2
    memory: str = "256Mi"

    @property
    def has_api(self) -> bool:
        """Say whether it answers HTTP."""
        return "api" in self.doors


def workloads() -> list[Workload]:
    """List what runs; ingest's HTTP and its writers are two, so that they scale apart."""
    plain = [Workload(name, name) for name in NAMES if name != "metering-ingest"]
    ingest = [
        Workload("metering-ingest", "metering-ingest", "api"),
        Workload("metering-ingest-writer", "metering-ingest", "consumers,jobs", memory="384Mi"),
    ]
    return sorted([*plain, *ingest], key=lambda workload: workload.name)


def labels(name: str) -> dict[str, str]:
    """Give the labels that select one workload's pods."""
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "event-builder"}


def deployment(workload: Workload) -> Manifest:
    """Write a service's Deployment: nobody's user, a read-only root, probes on the admin port."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": workload.name, "labels": labels(workload.name)},
        "spec": {
            "replicas": workload.replicas,
            "selector": {"matchLabels": labels(workload.name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": labels(workload.name)},
                "spec": _pod_spec(workload.name, _container(workload), grace_s=40),
            },
        },
    }


def _pod_spec(name: str, container: Manifest, *, grace_s: int) -> Manifest:
    return {
        "serviceAccountName": "event-builder",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels(name)},
            }
        ],
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
    }


def _container(workload: Workload) -> Manifest:
    doors = [{"name": "http", "containerPort": HTTP_PORT}] if workload.has_api else []
    return {
        "name": "service",
        "image": IMAGE,
        "args": ["python", "-m", f"eb_{schema_of(workload.service)}", "--doors", workload.doors],
        "envFrom": [
            {"configMapRef": {"name": "event-builder"}},
            {"secretRef": {"name": f"{workload.service}-secrets"}},
        ],
        "ports": [*doors, {"name": "admin", "containerPort": ADMIN_PORT}],
        "startupProbe": _probe("/livez", period_s=2, failures=30),
        "livenessProbe": _probe("/livez", period_s=10, failures=6),
        "readinessProbe": _probe("/readyz", period_s=3, failures=2),
        "resources": {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"memory": workload.memory}},
        **_locked_down(),
    }


def _locked_down() -> Manifest:
    return {
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a path in the container
    }


def _probe(path: str, *, period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "admin"},
        "periodSeconds": period_s,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def service(name: str, ports: dict[str, int]) -> Manifest:
    """Write a Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels(name)},
        "spec": {
            "selector": labels(name),
            "ports": [{"name": target, "port": port, "targetPort": target} for target, port in ports.items()],
        },
    }


def disruption_budget(name: str) -> Manifest:
    """Keep one pod while nodes are drained."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "labels": labels(name)},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": labels(name)}},
    }


def network_policy(workload: Workload) -> Manifest:
    """Let only the gateway in at the HTTP door; the admin port is for probes and metrics in the cluster."""
    from_gateway = {
        "from": [{"podSelector": {"matchLabels": labels("gateway")}}],
        "ports": [{"protocol": "TCP", "port": HTTP_PORT}],
    }
    to_admin = {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": ADMIN_PORT}]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": workload.name, "labels": labels(workload.name)},
        "spec": {
            "podSelector": {"matchLabels": labels(workload.name)},
            "policyTypes": ["Ingress"],
            "ingress": [*([from_gateway] if workload.has_api else []), to_admin],
        },
    }


def common() -> list[Manifest]:
    """Write what all share: the account and the settings that are no secrets."""
    settings = {
        "EB_ENV": "production",
        "EB_HTTP_HOST": "0.0.0.0",  # noqa: S104 - inside a pod
        "EB_HTTP_PORT": str(HTTP_PORT),
        "EB_ADMIN_PORT": str(ADMIN_PORT),
        "EB_PUBLIC_URL": "https://event-builder.example",
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "event-builder"},
            "automountServiceAccountToken": False,
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "event-builder"}, "data": settings},
    ]


def prepare_job() -> Manifest:
    """Write the job of a release: migrations, passwords of the roles, topology of the broker."""
    container = {
        "name": "prepare",
        "image": IMAGE,
        "args": ["python", "-m", "eb_tools.prepare"],
        "envFrom": [{"secretRef": {"name": "prepare-secrets"}}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        **_locked_down(),
    }
    spec = _pod_spec("prepare", container, grace_s=30) | {"restartPolicy": "OnFailure"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"prepare-{VERSION.replace('.', '-')}", "labels": labels("prepare")},
        "spec": {
            "backoffLimit": 6,
            "ttlSecondsAfterFinished": 86400,
            "template": {"metadata": {"labels": labels("prepare")}, "spec": spec},
        },
    }


def gateway_config(*, is_https: bool = False) -> str:
    """Write haproxy.cfg for services in containers, each under its own name."""
    backends = {name: gateway.Backend(f"{name}:{HTTP_PORT}", ADMIN_PORT) for name in NAMES}
    options = gateway.Options(bind=f":{GATEWAY_PORT}", has_rate_limits=True, is_https=is_https)
    return gateway.render(gateway.read_routes(), backends, options)


def front() -> list[Manifest]:
    """Write the gateway: HAProxy with the configuration made from the routes."""
    container = {
        "name": "haproxy",
        "image": HAPROXY,
        "ports": [{"name": "http", "containerPort": GATEWAY_PORT}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 3},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        **_locked_down(),
    }
    mount = {"name": "config", "mountPath": "/usr/local/etc/haproxy", "readOnly": True}
    container["volumeMounts"] = [*container["volumeMounts"], mount]
    spec = _pod_spec("gateway", container, grace_s=40)
    spec["volumes"] = [*spec["volumes"], {"name": "config", "configMap": {"name": "gateway"}}]
    deployed = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gateway", "labels": labels("gateway")},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels("gateway")},
            "template": {"metadata": {"labels": labels("gateway")}, "spec": spec},
        },
    }
    config: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "gateway", "labels": labels("gateway")},
        "data": {gateway.CONFIG: gateway_config(is_https=True), **gateway.early_answers(is_https=True)},
    }
    return [config, deployed, service("gateway", {"http": 80}), disruption_budget("gateway")]


def of_workload(workload: Workload) -> list[Manifest]:
    """Write everything that belongs to one workload."""
    doors = [service(workload.name, {"http": HTTP_PORT, "admin": ADMIN_PORT})] if workload.has_api else []
    return [deployment(workload), *doors, disruption_budget(workload.name), network_policy(workload)]


def files() -> dict[str, str]:
    """Give every file of the base by its name."""
    made = {f"{workload.name}.yaml": of_workload(workload) for workload in workloads()}
    made |= {"common.yaml": common(), "prepare.yaml": [prepare_job()], "gateway.yaml": front()}
    kustomization: Manifest = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "event-builder",
        "resources": sorted(made),
        "images": [{"name": IMAGE, "newTag": VERSION}],
    }
    return {name: _text(manifests) for name, manifests in made.items()} | {
        "kustomization.yaml": _text([kustomization])
    }


def _text(manifests: list[Manifest]) -> str:
    head = "# Written by `python -m eb_tools.manifests`; change the model there.\n"
    return head + yaml.safe_dump_all(manifests, sort_keys=False, explicit_start=True, width=110)


def wanted() -> dict[Path, str]:
    """Give every generated file with its text."""
    beside = {GATEWAY / name: text for name, text in gateway.early_answers().items()}
    return {BASE / name: text for name, text in files().items()} | {
        GATEWAY / gateway.CONFIG: gateway_config(),
        **beside,
    }


def problems() -> list[str]:
    """Say which files differ from the model."""
    made = wanted()
    found = [*BASE.glob("*.yaml"), *GATEWAY.glob("*.http"), *GATEWAY.glob("*.cfg")]
    there = {path: path.read_text() for path in found}
    return [
        f"{path} differs from eb_tools.manifests; write it again: make docs"
        for path in sorted(made.keys() | there.keys())
        if made.get(path) != there.get(path)
    ]


def main() -> None:
    """Write them."""
    BASE.mkdir(parents=True, exist_ok=True)
    for stale in [*BASE.glob("*.yaml"), *GATEWAY.glob("*.http")]:
        stale.unlink()
    for path, text in wanted().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
