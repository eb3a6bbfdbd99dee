"""The Kubernetes base: all seven services from one model, written to deploy/k8s/base and, what may be added, to
deploy/k8s/components; haproxy.cfg and its error files for containers.

`python -m eb_tools.manifests` writes the files again; `make lint` compares them with the model and checks each
against the Kubernetes API. Secrets are named, never contained: `<service>-secrets` holds DATABASE_URL, AMQP_URL
and what else the service must be told in private; `prepare-secrets` holds the owner's.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from eb_tools import gateway, network
from eb_tools.names import NAMES, schema_of
from eb_tools.network import ADMIN_PORT, GATEWAY_PORT, HTTP_PORT, Manifest, labels
from eb_tools.paths import repository

K8S = repository() / "deploy" / "k8s"
GATEWAY = repository() / "deploy" / "gateway"
IMAGE, OPS_IMAGE = "event-builder", "event-builder-ops"
HAPROXY = "haproxy:3.2"
"""The oldest branch that answers in our words what never became a request."""
VERSION = "0.1.0"
NOBODY = 10001
INSIDE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
"""Where pods and containers have their addresses. Whoever ends TLS for the gateway, and the gateway before services,
is believed about the client's address; nobody else gets to a service (eb_tools.network)."""
CA_FOLDER = "/etc/event-builder/ca"
"""Where the certificates of the inner authority lie, for `sslrootcert` and `cafile`: Secret `internal-ca`, if any."""


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
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "ca", "secret": {"secretName": "internal-ca", "optional": True}},
        ],
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
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a path in the container
            {"name": "ca", "mountPath": CA_FOLDER, "readOnly": True},
        ],
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


def fields() -> dict[str, frozenset[str]]:
    """Give the names of each workload's settings."""
    return {
        workload.name: frozenset(
            importlib.import_module(f"eb_{schema_of(workload.service)}.settings").Settings.model_fields
        )
        for workload in workloads()
    }


def network_policies() -> list[Manifest]:
    """Write what no workload's own file says: nobody may anything, then the ways to each place and the gateway's."""
    behind = [workload.name for workload in workloads() if workload.has_api]
    ways = [network.way_to(place, fields()) for place in network.PLACES if place.component is None]
    return [*network.of_all(), *network.of_gateway(behind), *ways]


def components() -> dict[str, str]:
    """Give the files of what may be added: the way to a place, and the settings that name it."""
    made: dict[str, str] = {}
    for place in network.PLACES:
        if place.component is not None:
            folder = f"components/{place.component}"
            made[f"{folder}/network.yaml"] = _text([network.way_to(place, fields())])
            made[f"{folder}/kustomization.yaml"] = _text([_component(["network.yaml"], place.told)])
    return made | {
        "components/encrypted-network/kustomization.yaml": _text([encrypted_network()]),
    }


def _component(resources: list[str], told: Mapping[str, str]) -> Manifest:
    made: Manifest = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"}
    if resources:
        made["resources"] = resources
    if told:
        made["patches"] = [{"patch": yaml.safe_dump(_settings(told), sort_keys=False)}]
    return made


def encrypted_network() -> Manifest:
    """Write the component for clusters whose network encrypts by itself: plain ports of database and broker."""
    made = _component([], {"EB_NETWORK_ENCRYPTS": "true"})
    plain = (("to-rabbitmq", 5672), ("to-rabbitmq-admin", 15672))
    made["patches"] += [
        {
            "target": {"kind": "NetworkPolicy", "name": name},
            "patch": yaml.safe_dump(
                [{"op": "replace", "path": "/spec/egress/0/ports/0/port", "value": port}], sort_keys=False
            ),
        }
        for name, port in plain
    ]
    return made


def _settings(told: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "event-builder"},
        "data": dict(told),
    }


def common() -> list[Manifest]:
    """Write what all share: the account and the settings that are no secrets."""
    told = {
        "EB_ENV": "production",
        "EB_HTTP_HOST": "0.0.0.0",  # noqa: S104 - inside a pod
        "EB_HTTP_PORT": str(HTTP_PORT),
        "EB_ADMIN_PORT": str(ADMIN_PORT),
        "EB_PUBLIC_URL": "https://event-builder.example",
        "EB_TRUSTED_PROXIES": ",".join(INSIDE),
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "event-builder"},
            "automountServiceAccountToken": False,
        },
        _settings(told),
    ]


def prepare_job() -> Manifest:
    """Write the job of a release: migrations, passwords of the roles, topology of the broker."""
    container = {
        "name": "prepare",
        "image": OPS_IMAGE,
        "args": ["python", "-m", "eb_tools.prepare"],
        "envFrom": [
            {"configMapRef": {"name": "event-builder"}},
            {"secretRef": {"name": "prepare-secrets"}},
        ],
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
    options = gateway.Options(bind=f":{GATEWAY_PORT}", has_rate_limits=True, is_https=is_https, fronts=INSIDE)
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
    return [
        deployment(workload),
        *doors,
        disruption_budget(workload.name),
        network.doors(workload.name, has_api=workload.has_api),
    ]


def files() -> dict[str, str]:
    """Give every file by its path below deploy/k8s."""
    made = {f"{workload.name}.yaml": of_workload(workload) for workload in workloads()}
    made |= {"common.yaml": common(), "prepare.yaml": [prepare_job()], "gateway.yaml": front()}
    made |= {"network.yaml": network_policies()}
    kustomization: Manifest = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "event-builder",
        "resources": sorted(made),
        "images": [{"name": name, "newTag": VERSION} for name in (IMAGE, OPS_IMAGE)],
    }
    base = {f"base/{name}": _text(manifests) for name, manifests in made.items()}
    return base | {"base/kustomization.yaml": _text([kustomization])} | components()


def _text(manifests: list[Manifest]) -> str:
    head = "# Written by `python -m eb_tools.manifests`; change the model there.\n"
    return head + yaml.safe_dump_all(manifests, sort_keys=False, explicit_start=True, width=110)


def wanted() -> dict[Path, str]:
    """Give every generated file with its text."""
    beside = {GATEWAY / name: text for name, text in gateway.early_answers().items()}
    return {K8S / name: text for name, text in files().items()} | {
        GATEWAY / gateway.CONFIG: gateway_config(),
        **beside,
    }


def _generated() -> list[Path]:
    """List what is here of the kinds that are generated."""
    written = [path for pattern in ("base/*.yaml", "components/*/*.yaml") for path in K8S.glob(pattern)]
    return [*written, *GATEWAY.glob("*.http"), *GATEWAY.glob("*.cfg")]


def problems() -> list[str]:
    """Say which files differ from the model."""
    made = wanted()
    there = {path: path.read_text() for path in _generated()}
    return [
        f"{path} differs from eb_tools.manifests; write it again: make docs"
        for path in sorted(made.keys() | there.keys())
        if made.get(path) != there.get(path)
    ]


def main() -> None:
    """Write them."""
    for stale in _generated():
        stale.unlink()
    for path, text in wanted().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
